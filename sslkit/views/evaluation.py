"""The evaluation view: resize, center crop, normalise."""

from collections.abc import Sequence

from torch import Tensor

from sslkit.errors import RecipeError
from sslkit.types import IMAGENET_MEAN, IMAGENET_STD
from sslkit.views.checks import check_at_least, check_channels, check_value_range
from sslkit.views.pixels import Normalize, ValueRange, to_resizable, to_unit
from sslkit.views.resample import fit_square


class EvaluationView:
    """Resize of the shorter side, center crop and normalisation (DINO, arXiv:2104.14294: 256, then 224).

    Args:
        size: side of the view in pixels.
        resize: length of the shorter side before the crop, at least ``size``; where both are 32, the pixels of a
            32 x 32 image stay as they are.
        channels: number of channels of the images.
        mean: mean of each channel, of values in [0, 1].
        std: standard deviation of each channel, of values in [0, 1].
        value_range: as in `MultiCrop`.

    Raises:
        RecipeError: an argument is out of its range or does not fit the others.
    """

    def __init__(
        self,
        size: int = 224,
        resize: int = 256,
        channels: int = 3,
        mean: Sequence[float] = IMAGENET_MEAN,
        std: Sequence[float] = IMAGENET_STD,
        value_range: ValueRange | None = None,
    ) -> None:
        check_at_least("size", size, 1)
        if resize < size:
            raise RecipeError(f"resize: {resize} is smaller than the view that is cut from it; size is {size}")
        self.size = size
        self.resize = resize
        self.channels = channels
        self.normalize = Normalize(channels, mean, std)
        self.value_range = check_value_range(value_range)

    def __call__(self, image: Tensor) -> Tensor:
        """Return the view (C, size, size), floating.

        Args:
            image: (C, H, W) of any size; uint8, uint16, floating, or any dtype if there is a value range.

        Raises:
            DataError: the image has another number of channels, a dtype without a value range, or floating values
                far outside 0 .. 1 without one.
        """
        check_channels(image, self.channels)
        square = fit_square(to_resizable(image, self.value_range), self.resize, self.size)
        return self.normalize(square if square.is_floating_point() else to_unit(square, self.value_range))
