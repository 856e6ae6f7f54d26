"""Load initial weights into a backbone, matched by name; a partial match is refused unless it is allowed."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from sslkit.backbones.foreign import Weights, read_checkpoint
from sslkit.backbones.loading import load_model
from sslkit.backbones.weight_mismatch import beyond, describe_mismatch, is_below, some
from sslkit.contracts import Backbone
from sslkit.errors import SSLKitError

FORMS = (
    "timm:NAME (pretrained), hf-hub:OWNER/NAME, a run folder, an exported folder, or a .safetensors or .pth file "
    "(DINO, MoCo, SwAV, timm, torchvision)"
)

HEADS = ("head", "fc", "classifier", "projection_head", "prototypes")
"""Prefixes of names that belong to no backbone: a file may hold such weights besides."""

COUNTER = "num_batches_tracked"
"""A buffer of batch norms that old files lack, and that only a cumulative average reads."""


@dataclass(frozen=True)
class Match:
    """The weights that a backbone takes from a file, and those that it does not.

    Args:
        taken: weights by the backbone's names, in its shapes.
        reshaped: shapes before and after resampling, by name, where they differ.
        missing: names of the backbone's weights that keep their initialisation.
        unused: names in the file that are not used.
    """

    taken: Mapping[str, Tensor]
    reshaped: Mapping[str, tuple[tuple[int, ...], tuple[int, ...]]]
    missing: Sequence[str]
    unused: Sequence[str]


def read_weights(place: str, network: str | None = None) -> Weights:
    """Read weights by the name of a model, a run or a file.

    Args:
        place: one of ``FORMS``.
        network: teacher or student of a run or a checkpoint; None is the one that the method evaluates.

    Raises:
        SSLKitError: there are no such weights, or they cannot be read.
    """
    path, scheme = Path(place).expanduser(), place.partition(":")[0]
    if path.is_file():
        return read_checkpoint(path, network)
    if scheme not in ("timm", "hf-hub") and not path.is_dir():
        raise SSLKitError(f"there are no weights {place}: give {FORMS}")
    is_run = (path / "recipe.yaml").is_file()
    if network is not None and not is_run:
        raise SSLKitError(f"{place} is one network: leave out {network!r}, which chooses one of a run or a checkpoint")
    model = load_model(place, network or "teacher")
    source = f"the {model.network} of {place}" if is_run else place
    # Weights of timm and the Hub may come from training by another rule than the one in timm.
    positions = getattr(model.backbone, "positions", None) if path.is_dir() else None
    return Weights(source, model.backbone.named_weights(), preprocessing=model.preprocessing, positions=positions)


def match(backbone: Backbone, weights: Weights, partial: Collection[str] = ()) -> Match:
    """Match the weights of a backbone with those of a file by name, resampled to the backbone's shapes.

    Counters of batch norms may be missing, and heads (`HEADS`) unused.

    Args:
        backbone: the backbone, which is not changed yet.
        weights: from `read_weights`.
        partial: prefixes of names (``blocks.11``) that may be missing, unused or of another shape.

    Raises:
        SSLKitError: names or shapes differ beyond ``partial``, or numbers are not finite.
    """
    own = backbone.named_weights()
    theirs = {name: backbone.resampled(name, weight) for name, weight in weights.tensors.items() if name in own}
    taken = {name: weight for name, weight in theirs.items() if weight.shape == own[name].shape}
    _check_partial(partial, own, weights.tensors)
    missing = [name for name in own if name not in theirs and not name.endswith(COUNTER)]
    misshapen = [name for name in theirs if name not in taken]
    unused = [name for name in weights.tensors if name not in own]
    wrong = {
        "not in it": beyond(missing, partial),
        "of another shape in it": beyond(misshapen, partial),
        "in it alone": beyond(unused, [*partial, *HEADS]),
    }
    if not taken or any(wrong.values()):
        raise SSLKitError(describe_mismatch(weights, own, taken, wrong, partial))
    if broken := [name for name in taken if not weights.tensors[name].isfinite().all()]:
        raise SSLKitError(f"{weights.source} holds numbers that are not finite: {some(broken)}")
    reshaped = {
        name: (tuple(weights.tensors[name].shape), tuple(weight.shape))
        for name, weight in taken.items()
        if weights.tensors[name].shape != weight.shape
    }
    return Match(taken, reshaped, [*missing, *misshapen], unused)


@torch.no_grad()
def take(backbone: Backbone, found: Match) -> None:
    """Copy matched weights into a backbone of the same shapes."""
    own = backbone.named_weights()
    for name, weight in found.taken.items():
        own[name].copy_(weight)


def fingerprint(tensors: Mapping[str, Tensor], names: Iterable[str]) -> str:
    """Return a hash, 16 hexadecimal digits, of the names, dtypes, shapes and bytes of tensors on any device."""
    digest = hashlib.sha256()
    for name in sorted(names):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        # As bytes, since NumPy has no bfloat16.
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()[:16]


def _check_partial(partial: Collection[str], own: Collection[str], theirs: Collection[str]) -> None:
    for begin in partial:
        if not any(is_below(name, begin) for name in (*own, *theirs)):
            raise SSLKitError(f"partial: no weight is called {begin!r}, and no name begins with {begin + '.'!r}")
