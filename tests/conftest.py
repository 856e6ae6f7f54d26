"""One thread, one seed, and the smallest networks that have everything a step touches."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sslkit.contracts import Backbone, Head
from sslkit.method.branch import Branch
from sslkit.types import Features, ViewGroup, Views

torch.set_num_threads(1)


def pytest_collection_modifyitems(items):
    # Once a backward pass on tensors without numbers has started autograd's threads, no forked child may use autograd.
    items.sort(key=lambda item: item.get_closest_marker("forks") is None)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class TinyBackbone(Backbone):
    """A convolution, a mean over pixels, a linear layer; counts its forward passes."""

    embed_dim = 5

    def __init__(self, drop: float = 0.0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.drop = nn.Dropout(drop)
        self.linear = nn.Linear(4, self.embed_dim)
        self.forwards = 0

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        self.forwards += 1
        return Features(self.linear(self.drop(F.gelu(self.conv(images))).mean((2, 3))))


class TinyHead(Head):
    embed_dim = 6

    def __init__(self, num_prototypes: int | None = 11, batch_norm: bool = False) -> None:
        super().__init__()
        norm = nn.BatchNorm1d(7) if batch_norm else nn.Identity()
        self.projector = nn.Sequential(nn.Linear(5, 7), norm, nn.GELU(), nn.Linear(7, self.embed_dim))
        self.prototypes = nn.Linear(self.embed_dim, num_prototypes, bias=False) if num_prototypes else None
        self.num_prototypes = num_prototypes


def branch(
    num_prototypes: int | None = 11,
    batch_norm: bool = False,
    drop: float = 0.0,
    predictor: nn.Module | None = None,
    dtype: torch.dtype = torch.float64,
) -> Branch:
    return Branch(TinyBackbone(drop), TinyHead(num_prototypes, batch_norm), predictor).to(dtype)


def views(batch: int = 4, num_local: int = 3, dtype: torch.dtype = torch.float64) -> Views:
    groups = [ViewGroup(torch.randn(2, batch, 3, 9, 9, dtype=dtype), (0, 1))]
    if num_local:
        local_ids = tuple(range(2, 2 + num_local))
        groups.append(ViewGroup(torch.randn(num_local, batch, 3, 6, 6, dtype=dtype), local_ids))
    return Views(tuple(groups))


@pytest.fixture
def tiny() -> SimpleNamespace:
    """Return makers of a small branch and of small multi-crop views, in float64 unless told otherwise."""
    return SimpleNamespace(branch=branch, views=views, Backbone=TinyBackbone, Head=TinyHead)


@pytest.fixture(scope="session")
def pair(tmp_path_factory):
    """Return the cases of properties/two_processes.py, the folder that two processes worked in, and their answers."""
    place = Path(__file__).parent / "properties/two_processes.py"
    spec = importlib.util.spec_from_file_location("two_processes", place)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    folder = tmp_path_factory.mktemp("pair")
    return SimpleNamespace(cases=module, folder=folder, answers=module.launch(folder))
