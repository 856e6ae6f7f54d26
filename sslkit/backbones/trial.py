"""Trial of networks before a run: a forward pass on tensors without values, which takes little time and no memory."""

import copy
from collections.abc import Callable
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from sslkit.contracts import Backbone
from sslkit.errors import RecipeError, reason_of

Network = TypeVar("Network", bound=nn.Module)

IMAGES = 2
"""Images in a trial of a backbone."""

STEP = 32
"""Pixels between the sizes that are tried in place of a refused one, where the backbone has no patch size."""

LARGEST = 512
"""The largest of those sizes."""


def without_values(network: Network) -> Network:
    """Return a copy of a network on the meta device: its tensors have shapes and dtypes, but no values."""

    def empty(tensor: Tensor) -> Tensor:
        shape = torch.empty_like(tensor, device="meta")
        return nn.Parameter(shape, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else shape

    # The memo of deepcopy holds an empty tensor for each real one, so that the copy allocates nothing.
    return copy.deepcopy(network, {id(tensor): empty(tensor) for tensor in (*network.parameters(), *network.buffers())})


class Trial:
    """Forward passes of a copy of a network on the CPU; neither the network nor random generators change.

    Args:
        network: what is tried, in the mode it is in.
        check: raises an error for an output that cannot be used.
    """

    def __init__(self, network: nn.Module, check: Callable[[Any], None] = lambda output: None) -> None:
        self.network, self.check = network, check
        floating = (tensor.dtype for tensor in network.parameters() if tensor.is_floating_point())
        self._dtype = next(floating, torch.float32)
        self._copy: nn.Module | None = None

    def failure(self, *shape: int) -> Exception | None:
        """Return the error of a pass on zeros of this shape, in the dtype of the network, or None.

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
                self.check(trial(torch.zeros(shape, dtype=self._dtype)))
        # Networks raise errors of any class.
        except Exception as error:
            return error
        return None

    def passes_without_values(self, *shape: int) -> bool:
        """Return whether a pass on tensors without values of this shape succeeds."""
        try:
            # Not torch's fake tensors: after a pass of those, no process that is forked can run autograd.
            with torch.random.fork_rng(devices=[]), torch.no_grad(), torch.device("meta"):
                self._copy = self._copy or without_values(self.network)
                self.check(self._copy(torch.empty(shape, dtype=self._dtype)))
        except Exception:
            return False
        return True


def check_size(key: str, backbone: Backbone, size: int, channels: int) -> None:
    """Refuse a backbone that cannot make features of images of a size, before a run begins.

    Args:
        key: of the size in the recipe, or an option of the command line, for the message.
        backbone: on the CPU.
        size: side of the images, in pixels.
        channels: of the images.

    Raises:
        RecipeError: naming the size, and the nearest sizes that the backbone takes; or the backbone, if it takes none.
    """
    # An evaluation takes vectors of any length.
    is_option = key.startswith("--")
    width = None if is_option else backbone.embed_dim
    trial = Trial(backbone, lambda output: _check_features(output, width))
    error = trial.failure(IMAGES, channels, size, size)
    if error is None:
        return
    kind = getattr(backbone, "name", type(backbone).__name__)
    # No other size changes what kind of output it has.
    near = [] if isinstance(error, _WrongOutput) else _sizes_near(size, backbone.patch_size or STEP, trial, channels)
    if not near:
        given, where = getattr(backbone, "model_args", None), "MODEL" if is_option else "method.backbone"
        remedy = f". It is made with model_args {given}; --method.backbone.model_args null drops them" if given else ""
        raise RecipeError(f"{where}: {kind} cannot take images: {reason_of(error)}{remedy}")
    options = (f"--{key.removeprefix('--')} {side}" for side in near)
    add = "\n  ".join([" Add" if len(near) == 1 else " Add one of", *options])
    raise RecipeError(f"{key}: {kind} cannot take images of {size} px: {reason_of(error).rstrip('.')}.{add}")


def _sizes_near(size: int, step: int, trial: Trial, channels: int) -> list[int]:
    """Return the nearest sizes below and above, multiples of ``step``, that a backbone takes, as many as there are."""
    below = min(size - 1, LARGEST) // step * step
    near = []
    for sides in (range(below, 0, -step), range(below + step, LARGEST + 1, step)):
        passing = (side for side in sides if side != size and trial.passes_without_values(IMAGES, channels, side, side))
        near += [side for side, _ in zip(passing, range(1))]
    return near


class _WrongOutput(RecipeError):
    """An output of a backbone that is not one vector an image."""


def _check_features(features: Any, width: int | None) -> None:
    """Raise an error for an output that is not one vector an image, of this length unless that is None."""
    vector = getattr(features, "cls", None)
    if not isinstance(vector, Tensor):
        raise _WrongOutput(f"it returns {type(features).__name__}, not Features with one vector an image")
    if vector.ndim != 2 or len(vector) != IMAGES or width not in (None, vector.shape[1]):
        length = "" if width is None else f" of {width}"
        raise _WrongOutput(f"it returns {tuple(vector.shape)} for {IMAGES} images, not one vector{length} for each")
