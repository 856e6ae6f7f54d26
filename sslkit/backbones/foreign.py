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
        source: description of the weights for messages.
        tensors: the weights by name; those of a classifier or a head may be among them.
        beside: numbers of the other tensors in the file, by the prefix of their names.
        preprocessing: preprocessing of the images in training; None if it is not recorded.
        positions: how position embeddings, if there are any, were resampled for images of other sizes in training,
            as in `TimmBackbone`; None if that is unknown.
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
        name: name of the layout for messages.
        networks: the prefix of the weights' names for each network; first the one that the method evaluates.
        mark: a prefix that some other name must have for the layout to be recognised; empty for none.
        positions: as in `Weights`; None if it does not follow from the layout.
    """

    name: str
    networks: Mapping[str, str]
    mark: str = ""
    positions: str | None = None

    def networks_in(self, names: Mapping[str, Tensor]) -> list[str]:
        """Return the networks that these names are of, in order; none if the layout is another one."""
        if not _any_begins(names, self.mark):
            return []
        return [network for network, prefix in self.networks.items() if _any_begins(names, prefix)]


LAYOUTS = (
    Layout("DINO", {"teacher": "teacher.backbone.", "student": "student.backbone."}, positions="dino"),
    Layout("MoCo-v3", {"student": "base_encoder.", "teacher": "momentum_encoder."}),
    Layout("MoCo", {"student": "encoder_q.", "teacher": "encoder_k."}),
    Layout("SwAV", {"student": ""}, mark="prototypes."),
    # DINO publishes its backbones in this layout too. The empty prefix fits every file: this layout has to be the last.
    Layout("plain", {"backbone": ""}, positions="dino"),
)
"""Known layouts; the first that fits is taken. The prefix ``module.`` of torch's wrappers is removed before."""

CONTAINERS = ("state_dict", "model")
"""Keys of the mapping that holds all weights, in files that also hold epochs and optimizers."""

UNTOUCHED = {".pkl": "a pickle", ".pickle": "a pickle", ".npz": "a NumPy archive", ".h5": "an HDF5 file"}
"""Formats of other frameworks by suffix; these files are not opened."""


def read_checkpoint(path: Path, network: str | None = None) -> Weights:
    """Read the backbone from a ``.safetensors`` file or a file of ``torch.save``.

    The only Python objects that are unpickled are tensors, plain containers and ``argparse.Namespace``, which DINO's
    checkpoints hold.

    Args:
        path: the file.
        network: teacher or student; None is the one that the layout's method evaluates.

    Raises:
        SSLKitError: the file cannot be read safely, or holds no weights.
        UnknownName: the file has no such network.
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
            # torch warns of a pickle that it then refuses; the error raised below is enough.
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
    """Return the mapping under one of the `CONTAINERS` keys, or the checkpoint itself if there is none."""
    if isinstance(checkpoint, Mapping):
        for key in CONTAINERS:
            if isinstance(checkpoint.get(key), Mapping):
                return checkpoint[key]
    return checkpoint


def _named(value: Any, keys: tuple[str, ...] = ()) -> Iterator[tuple[str, Tensor]]:
    """Yield the dotted name and the tensor of every tensor in nested mappings, without ``module``."""
    if isinstance(value, Tensor):
        yield ".".join(key for key in keys if key != "module"), value
    elif isinstance(value, Mapping):
        for key, item in value.items():
            yield from _named(item, (*keys, *str(key).split(".")))


def _any_begins(names: Mapping[str, Tensor], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)
