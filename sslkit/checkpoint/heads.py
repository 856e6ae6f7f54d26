"""Heads of a run or a file, matched with those of a method."""

from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from sslkit.backbones.foreign import CENTER, Weights
from sslkit.backbones.matching import check_dtypes, check_finite
from sslkit.checkpoint.files import TENSORS
from sslkit.errors import SSLKitError, message_of
from sslkit.paths import local_path
from sslkit.recipe.sections import InitFrom, Method

AFRESH = "To start them afresh:\n  --method.init_from.heads false"


def read_heads(section: InitFrom, weights: Weights, method: Method) -> dict[str, Tensor]:
    """Return the state of head and predictor, and the center where a file and the method have one.

    Args:
        section: ``method.init_from``.
        weights: of the same source, with its heads if that is a file.
        method: whose head and predictor must have the same names and shapes.

    Returns:
        Tensors by the names of a method's parts: ``head.projector.0.weight``, ``collapse.center``.

    Raises:
        SSLKitError: there are no heads, they are damaged, or head or predictor have other names or shapes.
    """
    place = local_path(section.weights)
    theirs = weights.heads if place.is_file() else heads_of_run(place, section.network or "teacher")
    if not theirs:
        raise SSLKitError(
            f"heads: {weights.source} has no head whose names are known; files of DINO, MoCo and SwAV have. {AFRESH}"
        )
    expected = {**_state("head", method.head), **_state("predictor", method.predictor)}
    heads = {name: theirs[name] for name in expected if name in theirs}
    differing = [name for name in expected if name not in heads or heads[name].shape != expected[name].shape]
    extra = sorted(name for name in theirs if name.startswith("head.") and name not in expected)
    if differing or extra:
        raise SSLKitError(
            f"heads: method.head and method.predictor are not those of {place}: "
            f"{', '.join([*differing, *extra][:4])}. Take those, or start them afresh:\n  "
            "--method.init_from.heads false"
        )
    center = _state("collapse", method.collapse).get(CENTER)
    if center is not None and CENTER in theirs and theirs[CENTER].shape == center.shape:
        heads[CENTER], expected[CENTER] = theirs[CENTER], center
    check_dtypes(heads, expected, f"heads: {place}")
    check_finite(heads, f"heads: {place}")
    return heads


def heads_of_run(run: Path, network: str, parts: tuple[str, ...] = ("head", "predictor")) -> dict[str, Tensor]:
    """Return the state of parts of a network of a run, from its newest checkpoint.

    Args:
        run: the run folder.
        network: teacher or student; the predictor is the student's in either case.
        parts: head, predictor, collapse.

    Raises:
        SSLKitError: there is no checkpoint, or it is damaged.
    """
    newest = max(run.glob("checkpoints/step-*"), default=None)
    if newest is None:
        raise SSLKitError(f"heads: {run} is no run with a checkpoint, and only checkpoints hold heads. {AFRESH}")
    wanted = tuple(f".{part}." for part in parts)
    try:
        with safe_open(newest / TENSORS, "pt") as file:
            names = [*file.keys()]
            read = {name: file.get_tensor(name) for name in names if any(part in name for part in wanted)}
    except (OSError, SafetensorError) as error:
        raise SSLKitError(f"heads: {newest} is damaged ({message_of(error)})") from error
    # The predictor is in the student only, and a teacher that is the student is saved under its name.
    found = {**below("model.student", read), **below(f"model.{network}", read)}
    return {**found, **{f"collapse.{name}": tensor for name, tensor in below("model.collapse", read).items()}}


def below(part: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors whose names begin with ``part`` and a dot, by the rest of the name."""
    return {name.removeprefix(f"{part}."): t for name, t in tensors.items() if name.startswith(f"{part}.")}


def _state(part: str, module: nn.Module | None) -> dict[str, Tensor]:
    return {} if module is None else {f"{part}.{name}": tensor for name, tensor in module.state_dict().items()}
