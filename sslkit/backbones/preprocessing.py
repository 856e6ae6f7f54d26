"""Read the preprocessing of a backbone's images from its folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslkit.errors import SSLKitError
from sslkit.types import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

IMAGENET = Preprocessing(3, IMAGENET_MEAN, IMAGENET_STD)


def default_preprocessing(channels: int = 3) -> Preprocessing:
    """Return ImageNet's preprocessing, or a mean of 0.5 and a std of 0.25 for other than 3 channels."""
    return IMAGENET if channels == 3 else Preprocessing(channels, (0.5,) * channels, (0.25,) * channels)


def read_preprocessing(folder: Path) -> Preprocessing | None:
    """Read data.json in the folder of the weights or, for a run, in the folder above; None if there is none.

    Raises:
        SSLKitError: the file exists and cannot be read.
    """
    for file in (folder / "data.json", folder.parent / "data.json"):
        if file.is_file():
            try:
                return Preprocessing(**json.loads(file.read_text(encoding="utf-8")))
            except (ValueError, TypeError) as error:
                raise SSLKitError(f"{file}: {error}") from error
    return None


def recorded_statistics(folder: Path, channels: int) -> Preprocessing:
    """Read the preprocessing from a backbone's config.json, in timm's format.

    Raises:
        SSLKitError: the file cannot be read.
    """
    file = folder / "config.json"
    try:
        config = json.loads(file.read_text(encoding="utf-8"))
        return timm_statistics(config.get("pretrained_cfg", config), channels)
    except (ValueError, TypeError) as error:
        raise SSLKitError(f"{file}: {error}") from error


def timm_statistics(record: Mapping[str, Any], channels: int) -> Preprocessing:
    """Return the preprocessing of timm's pretrained_cfg: mean, std and size, each the default if it is missing.

    The shorter side is resized to 8/7 of the size, the paper's 256 for 224.
    """
    default = default_preprocessing(channels)
    # timm's mean and std have three numbers, also for a model created with another number of channels.
    fits = len(record.get("mean", ())) == len(record.get("std", ())) == channels
    mean, std = (tuple(record["mean"]), tuple(record["std"])) if fits else (default.mean, default.std)
    size = int(record.get("input_size", [default.size])[-1])
    return Preprocessing(channels, mean, std, size=size, resize=round(size * 8 / 7))
