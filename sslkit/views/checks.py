"""Check the arguments of view makers."""

from collections.abc import Sequence

from torch import Tensor

from sslkit.errors import DataError, RecipeError


def check_probability(name: str, value: float) -> None:
    """Refuse what is not in 0 .. 1."""
    if not 0 <= value <= 1:
        raise RecipeError(f"{name} is a probability, between 0 and 1, not {value}")


def check_probabilities(name: str, values: Sequence[float], num_views: int) -> None:
    """Refuse anything but one probability a view."""
    if len(values) != num_views:
        raise RecipeError(f"{name} needs one probability for each of its {num_views} views, not {list(values)}")
    for value in values:
        check_probability(name, value)


def check_interval(name: str, values: Sequence[float], low: float, high: float) -> None:
    """Refuse what is not two ordered numbers above ``low`` and at most ``high``."""
    if len(values) != 2 or not low < values[0] <= values[1] <= high:
        raise RecipeError(f"{name} is two numbers, the smaller first, above {low:g} and at most {high:g}, not {values}")


def check_at_least(name: str, value: float, least: float, most: float = float("inf")) -> None:
    """Refuse what is below ``least`` or above ``most``."""
    if not least <= value <= most:
        limits = f"at least {least:g}" if most == float("inf") else f"between {least:g} and {most:g}"
        raise RecipeError(f"{name} must be {limits}, not {value}")


def for_rgb(name: str, asked: float | None, default: float, channels: int) -> float:
    """Return the strength of an operation on colours: as asked, or the default where the images are RGB, else 0.

    Raises:
        RecipeError: it was asked for on images that are not RGB.
    """
    if asked and channels != 3:
        raise RecipeError(
            f"{name}: {asked} works on red, green and blue; these images have {channels} channels. "
            f"Leave {name} out or set it to 0."
        )
    if asked is None:
        return default if channels == 3 else 0.0
    return asked


def check_value_range(value_range: tuple[float, float] | None) -> tuple[float, float] | None:
    """Refuse a white that is not above black."""
    if value_range is not None and not value_range[0] < value_range[1]:
        raise RecipeError(f"value_range is the values of black and of white, in this order, not {value_range}")
    return value_range


def check_channels(image: Tensor, channels: int) -> None:
    """Refuse what is no image (C, H, W), or one of other channels than the recipe says."""
    if image.ndim != 3 or image.shape[-1] == channels < len(image):
        raise DataError(f"an image is (C, H, W), here ({channels}, H, W), not {tuple(image.shape)}")
    if len(image) != channels:
        raise DataError(f"an image has {len(image)} channels, the views were built for {channels}: see data.channels")
