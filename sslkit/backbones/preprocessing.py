"""Read the preprocessing of a backbone's images from its folder."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslkit.errors import SSLKitError, message_of
from sslkit.types import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

IMAGENET = Preprocessing(3, IMAGENET_MEAN, IMAGENET_STD)


def default_preprocessing(channels: int = 3) -> Preprocessing:
    """Return ImageNet's preprocessing, or a mean of 0.5 and a std of 0.25 for other than 3 channels."""
    return IMAGENET if channels == 3 else Preprocessing(channels, (0.5,) * channels, (0.25,) * channels)


def read_preprocessing(folder: Path, *others: Path) -> Preprocessing | None:
    """Read data.json in the folder of the weights or else in one of the others; None if there is none.

    Raises:
        SSLKitError: the file exists and cannot be read, or its values are none of a preprocessing.
    """
    for file in (place / "data.json" for place in (folder, *others)):
        if file.is_file():
            try:
                return _checked(Preprocessing(**json.loads(file.read_text(encoding="utf-8"))))
            except (OSError, ValueError, TypeError, RecursionError) as error:
                raise SSLKitError(f"{file}: {message_of(error)}") from error
    return None


def recorded_statistics(folder: Path, channels: int) -> Preprocessing:
    """Read the preprocessing from a backbone's config.json, in timm's format.

    Raises:
        SSLKitError: the file cannot be read, or its values are none of a preprocessing.
    """
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        record = config.get("pretrained_cfg", config)
        if not isinstance(record, Mapping):
            raise TypeError(f"pretrained_cfg is a mapping, not {record!r}")
        return timm_statistics(record, channels)
    except (OSError, ValueError, TypeError, LookupError) as error:
        raise SSLKitError(f"{file}: {message_of(error)}") from error


def timm_statistics(record: Mapping[str, Any], channels: int) -> Preprocessing:
    """Return the preprocessing of timm's pretrained_cfg: mean, std and size, each the default if it is missing.

    The shorter side is resized to 8/7 of the size, the paper's 256 for 224.

    Raises:
        ValueError: its values are none of a preprocessing.
    """
    default = default_preprocessing(channels)
    # timm's mean and std have three numbers, also for a model created with another number of channels.
    fits = len(record.get("mean", ())) == len(record.get("std", ())) == channels
    mean, std = (tuple(record["mean"]), tuple(record["std"])) if fits else (default.mean, default.std)
    size = int(record.get("input_size", [default.size])[-1])
    return _checked(Preprocessing(channels, mean, std, size=size, resize=round(size * 8 / 7)))


def _checked(found: Preprocessing) -> Preprocessing:
    """Return a preprocessing read from a file.

    Raises:
        ValueError: naming the first of its values that no images can have.
    """
    channels, bounds = found.channels, found.value_range
    wholes = {"channels": channels, "size": found.size, "resize": found.resize}
    for name, value in wholes.items():
        if type(value) is not int or value < 1:
            raise ValueError(f"{name} is a whole number of at least 1, not {value!r}")
    for name, values in (("mean", found.mean), ("std", found.std)):
        if not _are_numbers(values, channels) or (name == "std" and min(values) <= 0):
            raise ValueError(f"{name} is {channels} numbers{' above 0' if name == 'std' else ''}, not {values!r}")
    if bounds is not None and (not _are_numbers(bounds, 2) or bounds[0] >= bounds[1]):
        raise ValueError(f"value_range is null, or two numbers of which the second is larger, not {bounds!r}")
    return found


def _are_numbers(values: Any, count: int) -> bool:
    return (
        isinstance(values, list | tuple)
        and len(values) == count
        and all(type(value) in (int, float) and math.isfinite(value) for value in values)
    )
