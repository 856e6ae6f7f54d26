"""Recorded traces of the reference implementations, and the comparison with them."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from sslkit.contracts import Backbone
from sslkit.types import Features, Views

FOLDER = Path(__file__).parent / "traces"
TRACES = sorted(file.stem for file in FOLDER.glob("*.safetensors"))
READ = pytest.StashKey[dict]()
LAST = "test_every_recorded_tensor_is_compared"


class Trace:
    """One trace: its tensors by name, and what its JSON says; remembers which tensors were read."""

    def __init__(self, name: str, read: set[str]) -> None:
        self.name, self.read = name, read
        self.tensors = load_file(FOLDER / f"{name}.safetensors")
        self.json = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))

    def __getitem__(self, key: str) -> torch.Tensor:
        self.read.add(key)
        return self.tensors[key].clone()

    def below(self, prefix: str) -> dict[str, torch.Tensor]:
        """Return the tensors whose names begin with ``prefix``, without it."""
        return {key.removeprefix(prefix): self[key] for key in self.tensors if key.startswith(prefix)}


def relative_error(ours, theirs) -> float:
    """Return |ours - theirs| / |theirs| in float64; where theirs is 0, the norm of ours."""
    ours, theirs = (torch.as_tensor(each).detach().double() for each in (ours, theirs))
    assert ours.shape == theirs.shape, f"{tuple(ours.shape)} is not {tuple(theirs.shape)}"
    norm = theirs.norm()
    return float((ours - theirs).norm() / (norm if norm > 0 else 1.0))


def pytest_configure(config):
    config.compared = []
    config.stash[READ] = {name: set() for name in TRACES}


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: item.name == LAST)


@pytest.fixture
def trace(request):
    """Return a function that loads a trace by name."""
    return lambda name: Trace(name, request.config.stash[READ][name])


@pytest.fixture
def agrees(request):
    """Return a function that compares with a recorded tensor and keeps the error for the table."""

    def compare(trace: str, quantity: str, ours, theirs, tolerance: float) -> None:
        error = relative_error(ours, theirs)
        request.config.compared.append((trace, quantity, error, tolerance))
        assert error <= tolerance, f"{trace}: {quantity} is off by {error:.2g}, allowed is {tolerance:g}"

    return compare


class Given(Backbone):
    """A backbone whose features are its images (N, F, 1, 1), passed through a module."""

    def __init__(self, embed_dim: int, body: nn.Module | None = None) -> None:
        super().__init__()
        self.embed_dim, self.body = embed_dim, body or nn.Identity()

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        return Features(self.body(images.flatten(1)))


def views_of(*rows: Tensor, num_globals: int = 2) -> Views:
    """Return one view of each (B, F), as images (B, F, 1, 1)."""
    return Views.of([each[..., None, None] for each in rows], num_globals)


def load_by(module: nn.Module, names: dict[str, str], recorded: dict[str, Tensor]) -> None:
    """Set a module's tensors to recorded ones; ``names`` maps our names to theirs, and holds all of ours."""
    module.load_state_dict({ours: recorded[theirs] for ours, theirs in names.items()})


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad for name, p in module.named_parameters() if p.grad is not None}


@pytest.fixture
def given():
    """Return the networks around recorded numbers."""
    return SimpleNamespace(Backbone=Given, views_of=views_of, load_by=load_by, gradients=gradients)


@pytest.fixture
def unread(request):
    """Return the recorded tensors that no test has read, by trace; None where only some of the tests are run."""
    if not {*Path(__file__).parent.glob("test_*.py")} <= {item.path for item in request.session.items}:
        return None
    found = {}
    for name in TRACES:
        with safe_open(FOLDER / f"{name}.safetensors", "pt") as file:
            found[name] = sorted({*file.keys()} - request.config.stash[READ][name])
    return found
