"""Read checkpoint files of other programs without unpickling code, and recognise them by the names of their weights."""

import argparse
import pickle
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from sslkit.errors import SSLKitError, UnknownName, message_of
from sslkit.types import Preprocessing

PROJECTOR, PROTOTYPES, CENTER = "head.projector.", "head.prototypes.", "collapse.center"
"""Names in a method's parts: those of a head's weights begin so, and the center is called so."""


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
        network: the name of the network for results: teacher, student or backbone.
        heads: weights of the head, and the center, by the names of a method's parts (``head.projector.0.weight``,
            ``collapse.center``); empty if they were not asked for.
        num_heads: attention heads of a ViT, which its weights do not show; None if that is not recorded.
    """

    source: str
    tensors: Mapping[str, Tensor]
    beside: Mapping[str, int] = field(default_factory=dict)
    preprocessing: Preprocessing | None = None
    positions: str | None = None
    network: str = "backbone"
    heads: Mapping[str, Tensor] = field(default_factory=dict)
    num_heads: int | None = None


@dataclass(frozen=True)
class Layout:
    """Where the checkpoints of a program hold a backbone and its head.

    Args:
        name: name of the layout for messages.
        networks: the prefix of the weights' names for each network; first the one that the method evaluates.
        mark: a prefix that some other name must have for the layout to be recognised; empty for none.
        positions: as in `Weights`; None if it does not follow from the layout.
        heads: prefixes of the head's names, with ``{prefix}`` for that of the network and ``{network}`` for its name,
            and what replaces them in the names of a method's parts.
        num_heads: attention heads of the program's ViTs by width, where other programs have another number.
    """

    name: str
    networks: Mapping[str, str]
    mark: str = ""
    positions: str | None = None
    heads: Mapping[str, str] = field(default_factory=dict)
    num_heads: Mapping[int, int] = field(default_factory=dict)

    def networks_in(self, names: Iterable[str]) -> list[str]:
        """Return the networks that these names are of, in order; none if the layout is another one."""
        if not _any_begins(names, self.mark):
            return []
        return [network for network, prefix in self.networks.items() if _any_begins(names, prefix)]

    def part_name(self, name: str, network: str) -> str | None:
        """Return the name in a method's parts of a weight of the network's head; None for any other weight."""
        for place, part in self.heads.items():
            begin = place.format(network=network, prefix=self.networks[network])
            if name.startswith(begin):
                return _renamed(part + name.removeprefix(begin))
        return None


LAYOUTS = (
    Layout(
        "DINO",
        {"teacher": "teacher.backbone.", "student": "student.backbone."},
        positions="dino",
        heads={
            "{network}.head.mlp.": PROJECTOR,
            "{network}.head.last_layer.": PROTOTYPES,
            "dino_loss.center": CENTER,
        },
    ),
    # Its ViT-S has 12 attention heads where others have 6.
    Layout("MoCo-v3", {"student": "base_encoder.", "teacher": "momentum_encoder."}, num_heads={384: 12}),
    Layout("MoCo", {"student": "encoder_q.", "teacher": "encoder_k."}, heads={"{prefix}fc.": PROJECTOR}),
    Layout(
        "SwAV",
        {"student": ""},
        mark="prototypes.",
        heads={"projection_head.": PROJECTOR, "prototypes.": PROTOTYPES},
    ),
    # Barlow Twins and solo-learn, which adds the second network, have the same names.
    Layout("VICReg", {"student": "backbone.", "teacher": "momentum_backbone."}, mark="projector."),
    Layout("SimSiam", {"student": "encoder."}, mark="predictor."),
    # DINO publishes its backbones in this layout too. The empty prefix fits every file: this layout has to be the last.
    Layout("plain", {"backbone": ""}, positions="dino"),
)
"""Known layouts; the first that fits is taken. The prefix ``module.`` of torch's wrappers is removed before."""

CONTAINERS = ("state_dict", "model")
"""Keys of the mapping that holds all weights, in files that also hold epochs and optimizers."""

ZIP_START, PICKLE_START = b"PK\x03\x04", b"\x80"
"""First bytes of the files of torch.save, now and before version 1.6."""

UNTOUCHED = {".pkl": "a pickle", ".pickle": "a pickle", ".npz": "a NumPy archive", ".h5": "an HDF5 file"}
"""Formats of other frameworks by suffix; these files are not opened."""


def read_checkpoint(path: Path, network: str | None = None, heads: bool = False) -> Weights:
    """Read the backbone from a ``.safetensors`` file or a file of ``torch.save``.

    The only Python objects that are unpickled are tensors, plain containers and ``argparse.Namespace``, which DINO's
    checkpoints hold.

    Args:
        path: the file.
        network: teacher or student; None is the one that the layout's method evaluates.
        heads: whether the head and the center are read too.

    Raises:
        SSLKitError: the file cannot be read safely, or holds no weights.
        UnknownName: the file has no such network.
    """
    checkpoint = _read(path)
    try:
        names = dict(_named(_contained(checkpoint)))
    except RecursionError as error:
        raise SSLKitError(f"{path} holds a mapping that is inside itself, or too many inside one another") from error
    if not names:
        raise SSLKitError(f"{path} holds no named weights")
    layout, found = next((layout, found) for layout in LAYOUTS if (found := layout.networks_in(names)))
    if network is not None and network not in found:
        raise UnknownName("network", network, found, where=f"{path} ({layout.name} layout)")
    chosen = network or found[0]
    taken = _take_heads(names, layout, chosen) if heads else {}
    prefix = layout.networks[chosen]
    tensors = {name.removeprefix(prefix): tensor for name, tensor in names.items() if name.startswith(prefix)}
    depth = max(1, prefix.count("."))
    return Weights(
        source=f"the {chosen} of {path} ({layout.name} layout)",
        tensors=tensors,
        beside=Counter(".".join(name.split(".")[:depth]) for name in names if not name.startswith(prefix)),
        positions=layout.positions,
        network=chosen,
        heads=taken,
        num_heads=_recorded_heads(checkpoint) or layout.num_heads.get(_width(tensors)),
    )


def _take_heads(names: dict[str, Tensor], layout: Layout, network: str) -> dict[str, Tensor]:
    """Remove the weights of a network's head, and the center, and return them by the names of a method's parts."""
    parts = {name: part for name in names if (part := layout.part_name(name, network))}
    # The center has a first axis of length 1 there.
    return {part: names.pop(name).flatten() if part == CENTER else names.pop(name) for name, part in parts.items()}


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
        _check_start(path)
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            # torch warns of a pickle that it then refuses; the error raised below is enough.
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except SSLKitError:
        raise
    except pickle.UnpicklingError as error:
        refused = re.search(r"GLOBAL ([\w.]+)", str(error))
        raise SSLKitError(
            f"{path} holds {refused.group(1) if refused else 'other things'} besides weights, and reading that could "
            "run any code, so it is not read. Where you trust it, write its weights alone, "
            "torch.save(model.state_dict(), FILE), and take FILE"
        ) from error
    except Exception as error:  # torch raises nearly every kind of exception on damaged files
        # torch goes on to explain its first sentence.
        reason = message_of(error).partition(". ")[0]
        raise SSLKitError(f"{path} cannot be read, it may be cut short or damaged: {reason}") from error


def _check_start(path: Path) -> None:
    """Raise an error for a file that does not begin as those of ``torch.save`` do: a zip archive or a pickle."""
    with path.open("rb") as file:
        start = file.read(len(ZIP_START))
    if not start:
        raise SSLKitError(f"{path} cannot be read: it is empty")
    if start != ZIP_START and not start.startswith(PICKLE_START):
        raise SSLKitError(f"{path} cannot be read: torch.save did not write it; a .safetensors file needs that ending")


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


def _any_begins(names: Iterable[str], prefix: str) -> bool:
    return any(name.startswith(prefix) for name in names)


def _renamed(name: str) -> str:
    """Return the name of a head's weight where a program numbers or normalises its layers in another way."""
    # A projector of one layer is no sequence there; weight norm of newer versions of torch has other names.
    name = re.sub(r"^(head\.projector)\.(weight|bias)$", r"\1.0.\2", name)
    return re.sub(r"parametrizations\.weight\.original([01])$", lambda found: f"weight_{'gv'[int(found[1])]}", name)


def _recorded_heads(checkpoint: Any) -> int | None:
    """Return the number of attention heads that a checkpoint's arguments record, or None."""
    recorded = checkpoint.get("args") if isinstance(checkpoint, Mapping) else None
    arguments = vars(recorded) if isinstance(recorded, argparse.Namespace) else recorded
    number = arguments.get("num_heads") if isinstance(arguments, Mapping) else None
    return number if type(number) is int and number > 0 else None


def _width(tensors: Mapping[str, Tensor]) -> int:
    """Return the width of a ViT, or 0 for another network."""
    return tensors["cls_token"].numel() if "cls_token" in tensors else 0
