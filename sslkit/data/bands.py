"""Read arrays of any number of bands: .npy, and the bands and pages of TIFF files."""

import io
import struct
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from PIL import TiffImagePlugin
from torch import Tensor

from sslkit.errors import install_command

NUMPY_START = b"\x93NUMPY"
TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

(
    NEW_SUBFILE_TYPE,
    IMAGE_WIDTH,
    IMAGE_HEIGHT,
    BITS_PER_SAMPLE,
    PHOTOMETRIC,
    SAMPLES_PER_PIXEL,
    EXTRA_SAMPLES,
    SAMPLE_FORMAT,
) = (
    254,
    256,
    257,
    258,
    262,
    277,
    338,
    339,
)
"""Numbers of TIFF tags."""

REDUCED, MASK = 1, 4
"""Bits of the subfile type: fewer pixels of another page, and a mask."""

ALPHA = (1, 2)
"""Kinds of extra samples that are alpha; 0 is anything else, such as near infrared."""

COLOUR_SAMPLES = {0: 1, 1: 1, 2: 3, 3: 1, 5: 4, 6: 3, 8: 3}
"""Samples of a pixel by the photometric interpretation."""

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


class TiffPage(NamedTuple):
    """What the tags of a page of a TIFF file say of its pixels.

    Args:
        number: of the page in the file, from 0.
        size: width and height.
        bits: of a sample.
        samples: of a pixel.
        photometric: 0 where 0 is white, 1 grey, 2 RGB, 3 palette, 5 CMYK, 6 YCbCr, 8 CIELAB.
        num_alpha: samples that are said to be alpha.
        is_signed: whether samples are signed whole numbers.
        is_copy: whether it is another page in fewer pixels, or a mask of it.
    """

    number: int
    size: tuple[int, int]
    bits: int
    samples: int
    photometric: int
    num_alpha: int
    is_signed: bool
    is_copy: bool

    @property
    def is_beyond_pillow(self) -> bool:
        """Whether Pillow would drop bands or bits: it takes a band of no stated meaning for padding."""
        bands = COLOUR_SAMPLES.get(self.photometric, 1) + self.num_alpha
        return self.samples > 4 or (self.samples > 1 and self.bits > 8) or self.samples > bands


def tiff_pages(data: bytes) -> list[TiffPage]:
    """Return the pages of a TIFF file, without those that repeat another one in fewer pixels.

    The tags are read by themselves, since Pillow prints a line for each file that it cannot decode.

    Raises:
        ValueError: the tags are damaged.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # on single tags, such as those of EXIF
            pages = _tagged_pages(data)
    except (SyntaxError, struct.error, LookupError, TypeError) as error:
        raise ValueError("its TIFF tags are damaged or cut off") from error
    if not pages:
        raise ValueError("its TIFF tags are damaged or cut off")
    return [page for page in pages if not page.is_copy] or pages[:1]


def _tagged_pages(data: bytes) -> list[TiffPage]:
    file, seen = io.BytesIO(data), set[int]()
    pages: list[TiffPage] = []
    tags = TiffImagePlugin.ImageFileDirectory_v2(data[: 16 if data[2:4] in (b"+\0", b"\0+") else 8])
    while tags.next and tags.next not in seen:
        seen.add(tags.next)
        file.seek(tags.next)
        tags.load(file)
        pages.append(_page(tags, len(pages)))
    return pages


def _page(tags: Any, number: int) -> TiffPage:
    kind, extra = tags.get(NEW_SUBFILE_TYPE, 0), np.atleast_1d(tags.get(EXTRA_SAMPLES, ()))
    return TiffPage(
        number,
        (tags[IMAGE_WIDTH], tags[IMAGE_HEIGHT]),
        int(max(np.atleast_1d(tags.get(BITS_PER_SAMPLE, 1)))),
        tags.get(SAMPLES_PER_PIXEL, 1),
        tags.get(PHOTOMETRIC, 1),
        int(np.isin(extra, ALPHA).sum()),
        2 in np.atleast_1d(tags.get(SAMPLE_FORMAT, 1)),
        bool(number and kind & (REDUCED | MASK)),
    )


def read_tiff(data: bytes, channels: int, num_alpha: int = 0) -> Tensor:
    """Return every band and every page of a TIFF file as (C, H, W), by the package ``tifffile``.

    Args:
        data: the file.
        channels: number of channels that are wanted; alpha is dropped where they are 1 or 3, as for other files.
        num_alpha: number of the last bands that are alpha.

    Raises:
        ValueError: the package is not installed, or the array is no image, as for `as_bands`.
    """
    try:
        import tifffile
    except ImportError:
        raise ValueError(
            "this TIFF file has more bands or bits than Pillow reads; tifffile reads them all: "
            + install_command("tifffile")
        ) from None
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        pages = file.series[0]
        if len(file.series) > 1:
            raise ValueError(different_pages([tuple(series.shape) for series in file.series]))
        try:
            array = pages.asarray()
        except ValueError as error:
            if "imagecodecs" in str(error):
                kind = getattr(pages.keyframe.compression, "name", "")
                raise ValueError(
                    f"its compression, {kind}, needs another package: {install_command('imagecodecs')}"
                ) from None
            raise
    sides = [pages.axes.index(axis) for axis in "YX"]
    array = np.moveaxis(array, sides, (-2, -1))
    bands = array.reshape(-1, *array.shape[-2:])
    return as_bands(bands[: len(bands) - num_alpha] if channels in (1, 3) else bands, len(bands), first=True)


def different_pages(shapes: Sequence[tuple[int, ...]]) -> str:
    """Return the message for pages that cannot be bands of one image."""
    found = ", ".join(" x ".join(map(str, shape)) for shape in dict.fromkeys(shapes))
    return f"its {len(shapes)} pages are of different kinds ({found}); save the one you want as a file of its own"


def as_bands(array: npt.NDArray[Any], channels: int, first: bool = False) -> Tensor:
    """Return an array of pixels as (C, H, W) in uint8, uint16 or float32.

    Args:
        array: (H, W), (H, W, C) or (C, H, W).
        channels: C where that tells which axis holds it.
        first: whether the first axis holds C in any case.

    Raises:
        ValueError: the array has another number of axes or an empty one, or values that none of these dtypes holds.
    """
    if array.ndim == 2:
        array = array[None]
    if array.ndim != 3 or 0 in array.shape:
        raise ValueError(f"an image has shape (H, W), (H, W, C) or (C, H, W), this one {array.shape}")
    left, _, right = array.shape
    if not first and (right == channels or (left != channels and right < left)):
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
    values = ""
    if array.dtype.kind in "iu":
        values = f", which holds their values from {array.min():,} to {array.max():,}, and set data.value_range"
    raise ValueError(f"its pixels are {array.dtype}; store them as uint8, uint16 or float32{values}")
