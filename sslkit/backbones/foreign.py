"""Read checkpoint files of other programs without unpickling code, and recognise them by the names of their weights."""

import argparse
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from sslkit.errors import SSLKitError, UnknownName
from sslkit.types import Preprocessing


@dataclass(frozen=True)
class Weights:
    """The weights of one backbone, by the names in the file.

    Args:
        source: what they are, for people.
        tensors: by name; a classifier or a head may be among them.
        beside: what else the file holds, and how many tensors of it.
        preprocessing: how their images were prepared, if they say so.
        positions: the rule of `TimmBackbone` by which their position embeddings, if there are any, were resampled for
            images of other sizes in training; None where nobody knows.
    """

    source: str
    tensors: Mapping[str, Tensor]
    beside: Mapping[str, int] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    positions: str | None = None


@dataclass(frozen=True)
class Layout:
    """Where the checkpoints of a program hold a backbone.

    Args:
        name: of the layout, for people.
        networks: each network, the one that the method is judged by first, and how the names of its weights begin.
        mark: what a name besides must begin with; empty for nothing.
        positions: as of `Weights`, as far as a layout can tell.
    """

    name: str
    networks: Mapping[str, str]
    mark: str = ""
    positions: str | None = None

    def networks_in(self, names: Mapping[str, Tensor]) -> list[str]:
        """Return the networks that these names hold; none if they are of another layout."""
        if not _any_begins(names, self.mark):
            return []
        return [network for network, prefix in self.networks.items() if _any_begins(names, prefix)]


LAYOUTS = (
    Layout("DINO", {"teacher": "teacher.backbone.", "student": "student.backbone."}, positions="dino"),
    Layout("MoCo-v3", {"student": "base_encoder.", "teacher": "momentum_encoder."}),
    Layout("MoCo", {"student": "encoder_q.", "teacher": "encoder_k."}),
    Layout("SwAV", {"student": ""}, mark="prototypes."),
    # DINO publishes its backbones so too.
    Layout("plain", {"backbone": ""}, positions="dino"),
)
"""Known layouts; the first that fits is taken. The prefix ``module.`` of torch's wrappers is removed before."""

CONTAINERS = ("state_dict", "model")
"""Keys under which programs keep all weights, beside epochs and optimizers."""

UNTOUCHED = {".pkl": "a pickle", ".pickle": "a pickle", ".npz": "a NumPy archive", ".h5": "an HDF5 file"}
"""Files of other frameworks by their suffix."""


def read_checkpoint(path: Path, network: str | None = None) -> Weights:
    """Read the backbone of a ``.safetensors`` file, or of what ``torch.save`` wrote.

    Of Python objects only tensors, plain containers and ``argparse.Namespace`` (DINO's own checkpoints) are read.

    Args:
        path: the file.
        network: teacher or student; None is the one that the layout's method is judged by.

    Raises:
        SSLKitError: the file cannot be read safely, or holds no weights.
        UnknownName: it has no such network.
    """
    names = dict(_named(_contained(_read(path))))
    if not names:
        raise SSLKitError(f"{path} holds no named weights")
    layout, found = next((layout, found) for layout in LAYOUTS if (found := layout.networks_in(names)))
    if network is not None and network not in found:
        raise UnknownName("network", network, found, where=f"{path} ({layout.name} layout)")
    chosen = network or found[0]
    prefix = layout.networks[chosen]
    tensors = {name.removeprefix(prefix): tensor for name, tensor in names.items() if name.startswith(prefix)}
    depth = max(1, prefix.count("."))
    beside = Counter(".".join(name.split(".")[:depth]) for name in names if not name.startswith(prefix))
    source = f"the {chosen} of {path} ({layout.name} layout)"
    return Weights(source, tensors, beside, positions=layout.positions)


def _read(path: Path) -> Any:
    suffix = path.suffix.lower()
    if suffix in UNTOUCHED:
        raise SSLKitError(
            f"{path} is {UNTOUCHED[suffix]} of another framework (BYOL's published checkpoints are pickles of JAX) and "
            "is not opened: unpickling can run any code, and its names are not timm's. Where you trust it, write its "
            "arrays by timm's names into a .safetensors file"
        )
    try:
        if suffix == ".safetensors":
            return load_file(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            # torch warns of a pickle that it then refuses.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise SSLKitError(
            f"{path} holds {refused.group(1) if refused else 'other things'} besides weights, and reading that could "
            "run any code, so it is not read. Where you trust it, write its weights alone, "
            "torch.save(model.state_dict(), FILE), and take FILE"
        ) from error
    except (OSError, EOFError, RuntimeError, ValueError, LookupError, TypeError, SafetensorError) as error:
        raise SSLKitError(f"{path} cannot be read: {error}") from error


def _contained(checkpoint: Any) -> Any:
    """Return the part that holds the weights, if one is set apart by its name."""
    if isinstance(checkpoint, Mapping):
        for key in CONTAINERS:
            if isinstance(checkpoint.get(key), Mapping):
                return checkpoint[key]
    return checkpoint


def _named(value: Any, parts: tuple[str, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    """Yield every tensor of nested mappings with its dotted name."""
    if isinstance(value, Tensor):
        yield ".".join(part for part in parts if part != "module"), value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _named(item, (*parts, *str(key).split(".")))


def _any_begins(names: Mapping[str, Tensor], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)
