"""Initialisation of the networks of a run with weights of another run or a file."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Protocol, runtime_checkable

from torch import Tensor

from sslkit.backbones.foreign import Weights
from sslkit.backbones.matching import Match, match, take
from sslkit.backbones.start import fingerprint, read_weights
from sslkit.backbones.weight_mismatch import groups, listed
from sslkit.checkpoint.heads import below, read_heads
from sslkit.contracts import Backbone, CollapseOperator, Head, Predictor
from sslkit.errors import RecipeError, SSLKitError
from sslkit.recipe.sections import Data, InitFrom, Method

WHOSE = {"timm": "timm", "dino": "DINO's own code"}
"""Names for messages of the rules that resample position embeddings, by the values of `TimmBackbone`."""


@dataclass(frozen=True)
class Start:
    """Initial weights, matched with the networks of a method.

    Args:
        weights: as read.
        found: the weights that the backbone takes, in its names and shapes.
        heads: state of head and predictor, and of a file's center, with the prefixes ``head.``, ``predictor.`` and
            ``collapse.``; empty to initialise head and predictor randomly.
        note: a message on position embeddings that the backbone resamples by another rule than the source; may be
            empty.
    """

    weights: Weights
    found: Match
    heads: Mapping[str, Tensor]
    note: str = ""

    @property
    def fingerprint(self) -> str:
        """Hash of the weights that are taken, in their original shapes: 16 hex digits."""
        heads = {f"heads.{name}": tensor for name, tensor in self.heads.items()}
        return fingerprint({**self.weights.tensors, **heads}, [*self.found.taken, *heads])

    def give(
        self,
        backbone: Backbone,
        head: Head,
        predictor: Predictor | None = None,
        collapse: CollapseOperator | None = None,
    ) -> None:
        """Load the weights into networks of the same shapes as those they were matched with."""
        take(backbone, self.found)
        for part, module in (("head", head), ("predictor", predictor), ("collapse", collapse)):
            if module is not None and (state := below(part, self.heads)):
                module.load_state_dict(state)

    def report(self, data: Data) -> Iterator[str]:
        """Yield lines on the weights that are taken, randomly initialised and not used, for the log.

        Args:
            data: mean and std of the recipe, compared with those of the source.
        """
        found, beside = self.found, {**groups(self.found.unused), **self.weights.beside}
        total = len(found.taken) + len(found.missing)
        yield f"init_from: {self.weights.source}: {len(found.taken)} of {total} tensors of the backbone"
        for name, (old, new) in found.reshaped.items():
            yield f"  {name}: {_sides(old)} made {_sides(new)}"
        if found.missing:
            yield f"  start afresh: {', '.join(found.missing)}"
        if beside:
            yield f"  not used: {listed(beside)}"
        yield f"  {listed(groups(self.heads))} taken too" if self.heads else "  the head starts afresh"
        theirs = self.weights.preprocessing
        if self.note:
            yield f"  {self.note}"
        if theirs and (list(theirs.mean), list(theirs.std)) != (list(data.mean), list(data.std)):
            yield f"  its images had mean {_numbers(theirs.mean)} and std {_numbers(theirs.std)}, not the recipe's"


@runtime_checkable
class HasPositions(Protocol):
    """A backbone with position embeddings, such as `TimmBackbone`."""

    positions: str

    def grid_of(self, size: int) -> tuple[int, int] | None:
        """Return rows and columns of patches of images of ``size`` x ``size`` px; None without position embeddings."""

    def grid_stored(self, positions: Tensor) -> tuple[int, int] | None:
        """Return rows and columns of the patches of position embeddings; None if they are not those of a square."""


def read_start(section: InitFrom, method: Method, sizes: Collection[int] = ()) -> Start:
    """Read the initial weights of a recipe and match them with its networks.

    Args:
        section: ``method.init_from``.
        method: the networks.
        sizes: of the views, in pixels.

    Raises:
        RecipeError: the weights cannot be read or do not fit; the message names the key and the choices.
    """
    try:
        weights = read_weights(section.weights, section.network, section.heads)
        found = match(method.backbone, weights, section.partial)
        heads = read_heads(section, weights, method) if section.heads else {}
        if left := groups(name for name in weights.heads if name not in heads):
            weights = replace(weights, beside={**weights.beside, **left})
        # Without position embeddings of its own, the source has no rule to compare.
        stored = weights.tensors["pos_embed"] if "pos_embed" in found.taken else None
        start = Start(weights, found, heads, _note_on_positions(weights.positions, stored, method.backbone, sizes))
    except SSLKitError as error:
        raise RecipeError(f"method.init_from: {error}") from error
    if section.fingerprint not in (None, start.fingerprint):
        raise RecipeError(
            f"method.init_from.fingerprint: {section.weights} holds other weights than the recipe was written with "
            f"({start.fingerprint}, not {section.fingerprint}). To take these:\n  --method.init_from.fingerprint null"
        )
    return start


def _note_on_positions(rule: str | None, stored: Tensor | None, backbone: Backbone, sizes: Collection[int]) -> str:
    """Return a message with the view sizes whose positions are not resampled by ``rule``, and the override, or "".

    Args:
        rule: by which the positions of the source were resampled in training; None if that is unknown.
        stored: the positions of the source; None without any.
        backbone: resamples them from their grid to that of each view, at once or by way of its own grid.
        sizes: of the views, in pixels.
    """
    if rule is None or stored is None or not isinstance(backbone, HasPositions) or backbone.positions == rule:
        return ""
    grid = backbone.grid_stored(stored)
    resampled = [str(size) for size in sorted(set(sizes)) if backbone.grid_of(size) not in (None, grid)]
    if not resampled or grid is None:
        return ""
    rules = f"as {WHOSE[backbone.positions]} does; as {WHOSE[rule]} does with --method.backbone.positions {rule}"
    return f"views of {', '.join(resampled)} px: positions of {_sides(grid)} patches are resampled {rules}"


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)
