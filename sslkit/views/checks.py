"""Check the arguments of view makers."""

from collections.abc import Sequence

from torch import Tensor

from sslkit.errors import DataError, RecipeError


def check_probability(name: str, value: float) -> None:
    """Raise RecipeError unless ``value`` is in 0 .. 1."""
    if not 0 <= value <= 1:
        raise RecipeError(f"{name} is a probability, between 0 and 1, not {value}")


def check_probabilities(name: str, values: Sequence[float], num_views: int) -> None:
    """Raise RecipeError unless there is one probability for each view."""
    if len(values) != num_views:
        raise RecipeError(f"{name} needs one probability for each of its {num_views} views, not {list(values)}")
    for value in values:
        check_probability(name, value)


def check_interval(name: str, values: Sequence[float], low: float, high: float) -> None:
    """Raise RecipeError unless ``values`` are two numbers in rising order, above ``low`` and at most ``high``."""
    if len(values) != 2 or not low < values[0] <= values[1] <= high:
        raise RecipeError(f"{name} is two numbers, the smaller first, above {low:g} and at most {high:g}, not {values}")


def check_at_least(name: str, value: float, least: float, most: float = float("inf")) -> None:
    """Raise RecipeError unless ``value`` is in ``least`` .. ``most``."""
    if not least <= value <= most:
        limits = f"at least {least:g}" if most == float("inf") else f"between {least:g} and {most:g}"
        raise RecipeError(f"{name} must be {limits}, not {value}")


def for_rgb(name: str, value: float | None, default: float, channels: int) -> float:
    """Return the strength of an RGB operation: ``value``, or where it is None the default for RGB and 0 for others.

    Raises:
        RecipeError: a value other than 0 was given for images that are not RGB.
    """
    if value and channels != 3:
        raise RecipeError(
            f"{name}: {value} works on red, green and blue; these images have {channels} channels. "
            f"Leave {name} out or set it to 0."
        )
    if value is None:
        return default if channels == 3 else 0.0
    return value


def check_value_range(value_range: tuple[float, float] | None) -> tuple[float, float] | None:
    """Return ``value_range``; raise RecipeError unless black is below white."""
    if value_range is not None and not value_range[0] < value_range[1]:
        raise RecipeError(f"value_range is the values of black and of white, in this order, not {value_range}")
    return value_range


def check_channels(image: Tensor, channels: int) -> None:
    """Raise DataError unless ``image`` is (C, H, W) with C = ``channels``."""
    # An image (H, W, C), as NumPy and Pillow have it, would otherwise be reported as one of H channels.
    if image.ndim != 3 or image.shape[-1] == channels < len(image):
        raise DataError(f"an image is (C, H, W), here ({channels}, H, W), not {tuple(image.shape)}")
    if len(image) != channels:
        raise DataError(f"an image has {len(image)} channels, the views were built for {channels}: see data.channels")
