"""Colour jitter, grayscale, blur and solarization of views, each applied to some of the images."""

from collections.abc import Callable, Sequence
from itertools import permutations
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sslkit.views.blur import blur_, gaussian_kernels
from sslkit.views.checks import check_at_least, check_interval, check_probability, for_rgb
from sslkit.views.color import brightness_, contrast_, grayscale_, hue_, saturation_, solarize_
from sslkit.views.draws import Stream, between

# The orders of brightness, contrast, saturation and hue: torchvision draws one for each call, here one for each view.
_ORDERS = np.array(list(permutations(range(4))))


Operation = Callable[[Tensor, Tensor], Tensor]
"""Changes (n, C, H, W) images in place and returns them; the second argument holds its parameters, (n, ...)."""

PARAMETERS: dict[Operation, Callable[[Tensor], Tensor]] = {blur_: gaussian_kernels}
"""Parameters (n, ...) computed on the host from the amounts (n,), for operations that take more than an amount."""


class Change(NamedTuple):
    """One operation on some images of a batch.

    Args:
        operation: the operation.
        chosen: (N,) whether an image is changed.
        amounts: (N,) the operation's factor, rotation or width for each image.
    """

    operation: Operation
    chosen: NDArray[np.bool_]
    amounts: NDArray[np.float64]

    def select(self, start: int, stop: int) -> "Selection | None":
        """Return the change restricted to the images start .. stop - 1, or None if it changes none of them."""
        # Only the images that change are computed: a blur with probability 0.1 on the whole batch would cost ten times
        # as much.
        rows = np.flatnonzero(self.chosen[start:stop])
        if not len(rows):
            return None
        amounts = torch.from_numpy(self.amounts[start:stop][rows])
        parameters = PARAMETERS[self.operation](amounts) if self.operation in PARAMETERS else amounts
        return Selection(self.operation, None if len(rows) == stop - start else torch.from_numpy(rows), parameters)


class Selection(NamedTuple):
    """One operation on the images that it changes.

    Args:
        operation: the operation.
        rows: (n,) the images, in rising order; None for all.
        parameters: (n, ...) of the operation.
    """

    operation: Operation
    rows: Tensor | None
    parameters: Tensor


class ColorJitter:
    """Colour jitter and grayscale, drawn for each view of each image; torchvision's ColorJitter and RandomGrayscale.

    Saturation, hue and grayscale are defined for RGB only: None is DINO's value for 3 channels, and 0 for others.

    Args:
        channels: number of channels of the images.
        brightness: b of a factor uniform in max(0, 1 - b) .. 1 + b; 0 leaves the operation out.
        contrast: likewise.
        saturation: likewise, RGB only; None: 0.2.
        hue: h of a rotation uniform in -h .. h turns, at most 0.5, RGB only; None: 0.1.
        probability: of applying these four together, in an order drawn for each view of each image.
        grayscale: probability, RGB only; None: 0.2.

    Attributes:
        dropped: the operations left out because the images are not RGB.

    Raises:
        RecipeError: a number is out of its range, or an RGB operation was requested for images that are not RGB.
    """

    def __init__(
        self,
        channels: int,
        brightness: float,
        contrast: float,
        saturation: float | None,
        hue: float | None,
        probability: float,
        grayscale: float | None,
    ) -> None:
        rgb_only = {"saturation": saturation, "hue": hue, "grayscale": grayscale}
        self.dropped = tuple(name for name, value in rgb_only.items() if value is None and channels != 3)
        saturation = for_rgb("saturation", saturation, 0.2, channels)
        hue = for_rgb("hue", hue, 0.1, channels)
        self.grayscale = for_rgb("grayscale", grayscale, 0.2, channels)
        self.probability = probability
        for name, strength in (
            ("brightness", brightness),
            ("contrast", contrast),
            ("saturation", saturation),
        ):
            check_at_least(name, strength, 0)
        check_at_least("hue", hue, 0, 0.5)
        check_probability("jitter_probability", probability)
        check_probability("grayscale", self.grayscale)
        self.operations = (
            (brightness_, Stream.BRIGHTNESS, *_factors(brightness)),
            (contrast_, Stream.CONTRAST, *_factors(contrast)),
            (saturation_, Stream.SATURATION, *_factors(saturation)),
            (hue_, Stream.HUE, -hue, hue),
        )

    def draw(self, draws: NDArray[np.float64]) -> list[Change]:
        """Return the changes drawn by uniforms (V, B, S), in the order in which they are applied."""
        jittered = draws[..., Stream.JITTER] < self.probability
        order = _ORDERS[(draws[..., Stream.JITTER_ORDER] * len(_ORDERS)).astype(np.int64)]
        # At each place in the order, every operation changes only the images whose order has it at that place.
        # Operations of zero strength are left out.
        jitter = [
            Change(operation, jittered & (order[..., place] == number), between(draws[..., stream], low, high))
            for place in range(len(self.operations))
            for number, (operation, stream, low, high) in enumerate(self.operations)
            if low < high
        ]
        gray = draws[..., Stream.GRAYSCALE] < self.grayscale
        return [*jitter, Change(grayscale_, gray, np.zeros(gray.shape))]


class Appearance:
    """The appearance of the V views of one resolution, in the order of BYOL and DINO (arXiv:2104.14294, §3.2).

    Args:
        jitter: colour jitter and grayscale.
        blur: V probabilities.
        blur_sigma: least and greatest standard deviation of the blur, in pixels.
        solarize: V probabilities; the threshold is 0.5.
    """

    def __init__(
        self,
        jitter: ColorJitter,
        blur: Sequence[float],
        blur_sigma: tuple[float, float],
        solarize: Sequence[float],
    ) -> None:
        check_interval("blur_sigma", blur_sigma, 0, float("inf"))
        self.jitter = jitter
        self.blur = np.array(blur)[:, None]
        self.blur_sigma = blur_sigma
        self.solarize = np.array(solarize)[:, None]

    def draw(self, draws: NDArray[np.float64]) -> list[Change]:
        """Return the changes of N = V * B images, views first, in the order in which they are applied.

        Args:
            draws: (B, V, S) uniforms.
        """
        draws = draws.transpose(1, 0, 2)
        sigmas = between(draws[..., Stream.BLUR_SIGMA], *self.blur_sigma)
        changes = [
            *self.jitter.draw(draws),
            Change(blur_, draws[..., Stream.BLUR] < self.blur, sigmas),
            Change(solarize_, draws[..., Stream.SOLARIZE] < self.solarize, np.zeros(sigmas.shape)),
        ]
        # Views first, as crops (V, B, ...) are flattened.
        flat = (Change(operation, chosen.ravel(), amounts.ravel()) for operation, chosen, amounts in changes)
        return [change for change in flat if change.chosen.any()]


def select(changes: Sequence[Change], start: int, stop: int) -> list[Selection]:
    """Return the selections for the images start .. stop - 1 of the batch, in order, as tensors on the host."""
    found = (change.select(start, stop) for change in changes)
    return [selection for selection in found if selection is not None]


def apply_(images: Tensor, selections: Sequence[Selection]) -> Tensor:
    """Apply selections, whose tensors are on the device of the images (N, C, H, W), in place; return the images."""
    for operation, rows, parameters in selections:
        if rows is None:
            operation(images, parameters)
        else:
            # Selected rows are a copy, so the result has to be written back.
            images.index_copy_(0, rows, operation(images.index_select(0, rows), parameters))
    return images


def _factors(strength: float) -> tuple[float, float]:
    return max(0.0, 1 - strength), 1 + strength
