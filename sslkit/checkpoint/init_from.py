"""Initialisation of the networks of a run with weights of another run or a file."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sslkit.backbones.foreign import Weights
from sslkit.backbones.matching import Match, match, take
from sslkit.backbones.start import fingerprint, read_weights
from sslkit.backbones.weight_mismatch import groups, listed
from sslkit.checkpoint.files import TENSORS
from sslkit.contracts import Backbone, Head, Predictor
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
        heads: state of head and predictor, with the prefixes ``head.`` and ``predictor.``; empty to initialise both
            randomly.
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

    def give(self, backbone: Backbone, head: Head, predictor: Predictor | None = None) -> None:
        """Load the weights into networks of the same shapes as those they were matched with."""
        take(backbone, self.found)
        for part, module in (("head", head), ("predictor", predictor)):
            if module is not None and self.heads:
                module.load_state_dict(_below(part, self.heads))

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

    def resamples(self, size: int) -> bool:
        """Whether position embeddings are resampled for images of ``size`` x ``size`` px."""


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
        weights = read_weights(section.weights, section.network)
        found = match(method.backbone, weights, section.partial)
        heads = _read_heads(section, method) if section.heads else {}
        # Without position embeddings of its own, the source has no rule to compare.
        rule = weights.positions if "pos_embed" in found.taken else None
        start = Start(weights, found, heads, _note_on_positions(rule, method.backbone, sizes))
    except SSLKitError as error:
        raise RecipeError(f"method.init_from: {error}") from error
    if section.fingerprint not in (None, start.fingerprint):
        raise RecipeError(
            f"method.init_from.fingerprint: {section.weights} holds other weights than the recipe was written with "
            f"({start.fingerprint}, not {section.fingerprint}). To take these:\n  --method.init_from.fingerprint null"
        )
    return start


def _note_on_positions(rule: str | None, backbone: Backbone, sizes: Collection[int]) -> str:
    """Return a message with the view sizes whose positions are not resampled by ``rule``, and the override, or ""."""
    if rule is None or not isinstance(backbone, HasPositions) or backbone.positions == rule:
        return ""
    resampled = [str(size) for size in sorted(set(sizes)) if backbone.resamples(size)]
    rules = f"as {WHOSE[backbone.positions]} does; as {WHOSE[rule]} does with --method.backbone.positions {rule}"
    return f"views of {', '.join(resampled)} px: positions are resampled {rules}" if resampled else ""


def _read_heads(section: InitFrom, method: Method) -> dict[str, Tensor]:
    """Return the state of head and predictor from the newest checkpoint of a run.

    Raises:
        SSLKitError: there is no checkpoint, it is damaged, or its head or predictor has other names or shapes.
    """
    run = Path(section.weights).expanduser()
    newest = max(run.glob("checkpoints/step-*"), default=None)
    if newest is None:
        raise SSLKitError(
            f"heads: {run} is no run with a checkpoint, and only checkpoints hold heads. To start them afresh:\n"
            "  --method.init_from.heads false"
        )
    try:
        with safe_open(newest / TENSORS, "pt") as file:
            names = [*file.keys()]
            read = {name: file.get_tensor(name) for name in names if ".head." in name or ".predictor." in name}
    except (OSError, SafetensorError) as error:
        raise SSLKitError(f"heads: {newest} is damaged ({error})") from error
    # The predictor is in the student only, and a teacher that is the student is saved under its name.
    theirs = {**_below("model.student", read), **_below(f"model.{section.network or 'teacher'}", read)}
    expected = {**_state("head", method.head), **_state("predictor", method.predictor)}
    heads = {name: theirs[name] for name in expected if name in theirs}
    differing = [name for name in expected if name not in heads or heads[name].shape != expected[name].shape]
    extra = sorted(name for name in _below("head", theirs) if f"head.{name}" not in expected)
    if differing or extra:
        raise SSLKitError(
            f"heads: method.head and method.predictor are not those of {run}: {', '.join([*differing, *extra][:4])}. "
            "Take that run's, or start them afresh:\n  --method.init_from.heads false"
        )
    return heads


def _below(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}


def _state(part: str, module: nn.Module | None) -> dict[str, Tensor]:
    return {} if module is None else {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}


def _sides(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def _numbers(values: Iterable[float]) -> str:
    return " ".join(f"{value:.3g}" for value in values)
