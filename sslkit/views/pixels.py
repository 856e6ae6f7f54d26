"""Convert images to [0, 1], and normalise them."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sslkit.errors import DataError, RecipeError
from sslkit.types import at_least_float32

ValueRange = tuple[float, float]

OVERSHOOT = 0.5
"""How far floating images may lie outside 0 .. 1, as after resizing; beyond it they are not in 0 .. 1 at all."""

_RANGES: dict[torch.dtype, ValueRange] = {torch.uint8: (0, 255), torch.uint16: (0, 65535)}


def to_unit(images: Tensor, value_range: ValueRange | None = None) -> Tensor:
    """Return floating images in [0, 1]: float32, or wider where the images are.

    Args:
        images: any shape and dtype.
        value_range: the values that become 0 and 1; values beyond are clamped. None: 0 .. 255 for uint8, 0 .. 65535 for
            uint16, 0 .. 1 for floating images.

    Raises:
        DataError: the dtype has no default range and none was given.
    """
    low, high = value_range or dtype_range(images.dtype)
    floating = images.float() if not images.is_floating_point() else at_least_float32(images)
    if images.dtype == torch.uint8 and value_range is None:
        # uint8 cannot lie outside its range: no clamp, and one pass in place.
        return floating.div_(255)
    return ((floating - low) / (high - low)).clamp_(0, 1)


def dtype_range(dtype: torch.dtype) -> ValueRange:
    """Return the values of black and of white by default.

    Raises:
        DataError: the dtype has no default.
    """
    if dtype.is_floating_point:
        return 0.0, 1.0
    if dtype not in _RANGES:
        raise DataError(f"{dtype} images have no default value range; set value_range, e.g. [0, 10000]")
    return _RANGES[dtype]


def to_resizable(image: Tensor, value_range: ValueRange | None = None) -> Tensor:
    """Return an image ready to be resized: uint8 as it is, which resizes several times as fast, others in [0, 1].

    Raises:
        DataError: the dtype has no value range and none was given, or a floating image without one lies outside 0 .. 1
            by more than `OVERSHOOT`: it was normalised before, or is in 0 .. 255.
    """
    if image.dtype == torch.uint8:
        return image
    if image.is_floating_point() and value_range is None:
        low, high = (extreme.item() for extreme in image.aminmax())
        if low < -OVERSHOOT or high > 1 + OVERSHOOT:
            raise DataError(
                f"floating images lie in 0 .. 1, but one goes from {low:.3g} to {high:.3g}; pass pixels as they were "
                "read, which the views normalise, or set value_range"
            )
    return to_unit(image, value_range)


class Normalize:
    """Subtract the data's mean and divide by its standard deviation, channel by channel.

    Args:
        channels: C.
        mean: C means of values in [0, 1].
        std: C standard deviations of values in [0, 1].

    Raises:
        RecipeError: there is not one mean and one positive standard deviation for each channel.
    """

    def __init__(self, channels: int, mean: Sequence[float], std: Sequence[float]) -> None:
        for name, numbers in (("mean", mean), ("std", std)):
            if len(numbers) != channels:
                raise RecipeError(
                    f"{name} has {len(numbers)} numbers for images of {channels} channels: give {channels}"
                )
        if min(std) <= 0:
            raise RecipeError(f"std must be above 0 in every channel, not {list(std)}")
        self.mean = torch.tensor(list(mean), dtype=torch.float64).view(-1, 1, 1)
        self.std = torch.tensor(list(std), dtype=torch.float64).view(-1, 1, 1)
        # Copied to a device once: every copy from memory that is not pinned makes the host wait for the stream.
        self._constants: dict[tuple[torch.device, torch.dtype], tuple[Tensor, Tensor]] = {}

    def __call__(self, images: Tensor, out: Tensor | None = None) -> Tensor:
        """Return (..., C, H, W) normalised, written to ``out`` if given."""
        place = (images.device, images.dtype)
        if place not in self._constants:
            self._constants[place] = (self.mean.to(images), self.std.to(images))
        mean, std = self._constants[place]
        return torch.sub(images, mean, out=out).div_(std)

    def __getstate__(self) -> dict[str, Any]:
        # A loader's workers get a copy of the view maker, and must not use the device.
        return {**vars(self), "_constants": {}}
