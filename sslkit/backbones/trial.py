"""Trial of networks before a run: a forward pass on tensors without values, which takes little time and no memory."""

import copy
import logging
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from sslkit.contracts import Backbone
from sslkit.errors import RecipeError, reason_of

Network = TypeVar("Network", bound=nn.Module)

IMAGES = 2
"""Images in a trial of a backbone."""

STEP = 32
"""Pixels between the sizes that are tried in place of a refused one, where the backbone has no patch size."""

LARGEST = 512
"""The largest of those sizes."""


def without_values(network: Network) -> tuple[FakeTensorMode, Network]:
    """Return a copy of a network whose tensors have shapes and dtypes but no values, and the mode to use it in."""
    # Tensors that are neither parameters nor buffers stay real in the copy.
    mode = FakeTensorMode(allow_non_fake_inputs=True)
    # The memo of deepcopy holds a fake tensor for each real one, so that the copy allocates nothing.
    state = {id(tensor): mode.from_tensor(tensor) for tensor in (*network.parameters(), *network.buffers())}
    return mode, copy.deepcopy(network, state)


class Trial:
    """Forward passes of a copy of a network on the CPU; neither the network nor random generators change.

    Args:
        network: what is tried, in the mode it is in.
        check: raises an error for an output that cannot be used.
    """

    def __init__(self, network: nn.Module, check: Callable[[Any], None] = lambda output: None) -> None:
        self.network, self.check = network, check
        self._copy: tuple[FakeTensorMode, nn.Module] | None = None

    def failure(self, *shape: int) -> Exception | None:
        """Return the error of a pass on zeros of this shape, float32, or None.

        A pass without values may fail for the lack of values, so only one with values refuses.
        """
        if self.passes_without_values(*shape):
            return None
        try:
            trial = copy.deepcopy(self.network)
        except Exception:
            # What cannot be copied cannot be tried without changing it.
            return None
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad():
                self.check(trial(torch.zeros(shape)))
        # Networks raise errors of any class.
        except Exception as error:
            return error
        return None

    def passes_without_values(self, *shape: int) -> bool:
        """Return whether a pass on tensors without values of this shape succeeds."""
        try:
            with torch.random.fork_rng(devices=[]), torch.no_grad(), _silent():
                self._copy = self._copy or without_values(self.network)
                mode, trial = self._copy
                with mode:
                    self.check(trial(torch.empty(shape)))
        except Exception:
            return False
        return True


def check_size(key: str, backbone: Backbone, size: int, channels: int) -> None:
    """Refuse a backbone that cannot make features of images of a size, before a run begins.

    Args:
        key: of the size in the recipe, for the message.
        backbone: on the CPU.
        size: side of the images, in pixels.
        channels: of the images.

    Raises:
        RecipeError: naming the size, and the nearest sizes that the backbone takes; or the backbone, if it takes none.
    """
    trial = Trial(backbone, lambda output: _check_features(output, backbone))
    error = trial.failure(IMAGES, channels, size, size)
    if error is None:
        return

    def first(sides: Iterable[int]) -> list[int]:
        """Return the first side that passes, as a list, which is empty where none does."""
        passing = (side for side in sides if trial.passes_without_values(IMAGES, channels, side, side))
        return [side for side, _ in zip(passing, range(1))]

    step, kind = backbone.patch_size or STEP, getattr(backbone, "name", type(backbone).__name__)
    below = min(size - 1, LARGEST) // step * step
    # No other size changes what kind of output it has.
    wrong_output = isinstance(error, _WrongOutput)
    near = [] if wrong_output else first(range(below, 0, -step)) + first(range(below + step, LARGEST + 1, step))
    if not near:
        given = getattr(backbone, "model_args", None)
        remedy = f". It is made with model_args {given}; --method.backbone.model_args null drops them" if given else ""
        raise RecipeError(f"method.backbone: {kind} cannot take images: {reason_of(error)}{remedy}")
    options = "\n  ".join([" Add" if len(near) == 1 else " Add one of", *(f"--{key} {side}" for side in near)])
    raise RecipeError(f"{key}: {kind} cannot take images of {size} px: {reason_of(error).rstrip('.')}.{options}")


class _WrongOutput(RecipeError):
    """An output of a backbone that is not one vector an image."""


def _check_features(features: Any, backbone: Backbone) -> None:
    """Raise an error for an output that is not one vector an image."""
    vector = getattr(features, "cls", None)
    if not isinstance(vector, Tensor):
        raise _WrongOutput(f"it returns {type(features).__name__}, not Features with one vector an image")
    if vector.shape != (IMAGES, backbone.embed_dim):
        raise _WrongOutput(
            f"it returns {tuple(vector.shape)} for {IMAGES} images, not one vector of {backbone.embed_dim} for each"
        )


@contextmanager
def _silent() -> Iterator[None]:
    """Keep torch from logging the errors of tensors without values, which are answered here."""
    logger = logging.getLogger("torch._subclasses.fake_tensor")
    before, logger.disabled = logger.disabled, True
    try:
        yield
    finally:
        logger.disabled = before
