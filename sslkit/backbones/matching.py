"""Match weights with a backbone by name, and copy them into it; a partial match is refused unless it is allowed."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from sslkit.backbones.foreign import Weights
from sslkit.backbones.weight_mismatch import beyond, describe_mismatch, is_below
from sslkit.contracts import Backbone
from sslkit.errors import SSLKitError, some

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


def match(backbone: Backbone, weights: Weights, partial: Collection[str] = ()) -> Match:
    """Match the weights of a backbone with those of a file by name, resampled to the backbone's shapes.

    Counters of batch norms may be missing, and heads (`HEADS`) unused.

    Args:
        backbone: the backbone, which is not changed yet.
        weights: from `sslkit.backbones.start.read_weights`.
        partial: prefixes of names (``blocks.11``) that may be missing, unused or of another shape.

    Raises:
        SSLKitError: names or shapes differ beyond ``partial``, or weights are no numbers that a network can have.
    """
    _check_partial(partial, backbone.named_weights(), weights.tensors)
    found, wrong = compare(backbone, weights, partial)
    if not found.taken or any(wrong.values()):
        own = backbone.named_weights()
        raise SSLKitError(describe_mismatch(weights, own, found.taken, wrong, partial))
    return found


def compare(
    backbone: Backbone, weights: Weights, partial: Collection[str] = ()
) -> tuple[Match, Mapping[str, Sequence[str]]]:
    """Return a match, and the names that differ beyond ``partial`` by the description of the difference.

    Args:
        backbone: as in `match`.
        weights: as in `match`.
        partial: as in `match`.

    Raises:
        SSLKitError: weights are not floating-point or not finite, or are of another number of attention heads.
    """
    own = backbone.named_weights()
    _check_num_heads(backbone, weights)
    check_dtypes(weights.tensors, own, weights.source)
    theirs = {name: backbone.resampled(name, weight) for name, weight in weights.tensors.items() if name in own}
    taken = {name: weight for name, weight in theirs.items() if weight.shape == own[name].shape}
    check_finite({name: weights.tensors[name] for name in taken}, weights.source)
    missing = [name for name in own if name not in theirs and not name.endswith(COUNTER)]
    misshapen = [name for name in theirs if name not in taken]
    unused = [name for name in weights.tensors if name not in own]
    wrong = {
        "not in it": beyond(missing, partial),
        "of another shape in it": beyond(misshapen, partial),
        "in it alone": beyond(unused, [*partial, *HEADS]),
    }
    reshaped = {
        name: (tuple(weights.tensors[name].shape), tuple(weight.shape))
        for name, weight in taken.items()
        if weights.tensors[name].shape != weight.shape
    }
    return Match(taken, reshaped, [*missing, *misshapen], unused), wrong


def check_dtypes(tensors: Mapping[str, Tensor], own: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights that a network of floating-point weights cannot have, which torch would convert silently.

    Args:
        tensors: weights by the network's names; other names are not looked at.
        own: the weights of the network.
        source: what the weights are, for the message.

    Raises:
        SSLKitError: weights are whole numbers, truth values, complex or sparse.
    """
    kinds = {name: _kind(weight) for name, weight in tensors.items() if name in own and own[name].is_floating_point()}
    if odd := [name for name, kind in kinds.items() if kind]:
        raise SSLKitError(
            f"{source} holds weights of {kinds[odd[0]]}, not of floating-point numbers: {some(odd)}. Of a quantised "
            "network, take the file from before it was quantised"
        )


def check_finite(tensors: Mapping[str, Tensor], source: str) -> None:
    """Refuse weights with numbers that are not finite.

    Args:
        tensors: the weights.
        source: what they are, for the message.

    Raises:
        SSLKitError: naming the weights.
    """
    # In float32, since torch has no such test for numbers of 8 bits.
    if broken := [name for name, weight in tensors.items() if not weight.float().isfinite().all()]:
        raise SSLKitError(f"{source} holds numbers that are not finite: {some(broken)}")


@torch.no_grad()
def take(backbone: Backbone, found: Match) -> None:
    """Copy matched weights into a backbone of the same shapes."""
    own = backbone.named_weights()
    for name, weight in found.taken.items():
        own[name].copy_(weight)


def _check_num_heads(backbone: Backbone, weights: Weights) -> None:
    """Refuse a ViT of another number of attention heads, whose weights have the same shapes and other features."""
    own = getattr(backbone, "num_heads", None)
    if own and weights.num_heads and own != weights.num_heads:
        raise SSLKitError(
            f"{weights.source} has {weights.num_heads} attention heads, the backbone {own}, with which they give "
            f"other features. Take model_args: {{num_heads: {weights.num_heads}}}"
        )


def _kind(weight: Tensor) -> str:
    """Return what makes a weight no dense tensor of floating-point numbers, or ""."""
    if weight.layout != torch.strided:
        return f"layout {str(weight.layout).removeprefix('torch.')}"
    return "" if weight.is_floating_point() else f"dtype {str(weight.dtype).removeprefix('torch.')}"


def _check_partial(partial: Collection[str], own: Collection[str], theirs: Collection[str]) -> None:
    for begin in partial:
        if not any(is_below(name, begin) for name in (*own, *theirs)):
            raise SSLKitError(f"partial: no weight is called {begin!r}, and no name begins with {begin + '.'!r}")
