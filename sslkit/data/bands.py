"""Read arrays of any number of bands: .npy, and TIFF files that Pillow cannot read completely."""

import io
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

NUMPY_START = b"\x93NUMPY"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

BITS_PER_SAMPLE, SAMPLES_PER_PIXEL = 258, 277
"""Numbers of TIFF tags."""

LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in grey, ITU-R BT.601."""


def read_npy(data: bytes, channels: int) -> Tensor:
    """Return the array of a .npy file as (C, H, W).

    Two axes are (H, W). Of three axes the last holds the bands if it has length ``channels``, else the first if it has,
    else the shorter of the two.

    Raises:
        ValueError: the array is no image, as for `as_bands`, or holds Python objects.
    """
    # Without pickles: a file of images must not be able to run code.
    return as_bands(np.load(io.BytesIO(data), allow_pickle=False), channels)


def read_tiff(data: bytes, channels: int) -> Tensor:
    """Return every band, or every page, of a TIFF file as (C, H, W), with the axes of `read_npy`.

    Raises:
        ValueError: the package ``tifffile`` is not installed, or the array is no image, as for `as_bands`.
    """
    try:
        import tifffile
    except ImportError:
        raise ValueError(
            "this TIFF file has more bands, pages or bits than Pillow reads; `pip install tifffile` reads them all"
        ) from None
    return as_bands(np.squeeze(tifffile.imread(io.BytesIO(data))), channels)


def is_beyond_pillow(picture: Image.Image) -> bool:
    """Return whether Pillow would drop pages, bands or bits of this TIFF file."""
    tags: Any = getattr(picture, "tag_v2", {})
    samples = tags.get(SAMPLES_PER_PIXEL, 1)
    bits = max(np.atleast_1d(tags.get(BITS_PER_SAMPLE, 1)))
    return bool(getattr(picture, "n_frames", 1) > 1 or samples > 4 or (samples > 1 and bits > 8))


def as_bands(array: npt.NDArray[Any], channels: int) -> Tensor:
    """Return an array of pixels as (C, H, W) in uint8, uint16 or float32.

    Raises:
        ValueError: the array has another number of axes or an empty one, or values that none of these dtypes holds.
    """
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"an image has shape (H, W), (H, W, C) or (C, H, W), this one {array.shape}")
    first, _, last = array.shape
    if last == channels or (first != channels and last < first):
        array = array.transpose(2, 0, 1)
    # A copy: arrays of Pillow and tifffile may be read-only, which torch warns of, or have negative strides, which it
    # refuses.
    return torch.from_numpy(np.array(_plain(array), order="C"))


def fit_channels(image: Tensor, channels: int) -> Tensor:
    """Return an image (C, H, W) with ``channels`` bands, none of them dropped.

    One band is repeated to three, three become one by ITU-R BT.601 luma; any other number must match.

    Raises:
        ValueError: the number of bands does not match.
    """
    bands = image.shape[0]
    if bands == channels:
        return image
    if bands == 1 and channels == 3:
        return image.expand(3, -1, -1).contiguous()
    if bands == 3 and channels == 1:
        grey = torch.einsum("chw,c->hw", image.double(), torch.tensor(LUMA, dtype=torch.float64))[None]
        return (grey if image.is_floating_point() else grey.round()).to(image.dtype)
    plural = "" if bands == 1 else "s"
    raise ValueError(f"it has {bands} band{plural}, data.channels is {channels}; none is dropped or invented")


def _plain(array: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return pixels as uint8, uint16 or float32: booleans as 0 and 255, whole numbers unscaled, floats as float32."""
    if array.dtype == bool:
        return array.astype(np.uint8) * np.uint8(255)
    if array.dtype.kind == "f":
        return array.astype(np.float32)
    if array.dtype.kind == "u" and array.dtype.itemsize <= 2:
        return array.astype(array.dtype.newbyteorder("="))
    if array.dtype.kind in "iu" and array.min() >= 0 and array.max() <= 65535:
        return array.astype(np.uint16)
    raise ValueError(f"its pixels are {array.dtype}; store them as uint8, uint16 or float32")
