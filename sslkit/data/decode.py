"""Decode image files of every common format, without losing bands or overlooking damage.

Pillow is the decoder. torchvision's decoders are a little faster, but a single wrong byte in a PNG can end the process
with a segmentation fault, and they are deprecated.
"""

import io
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

import numpy as np
import torch
from PIL import Image, ImageOps, PngImagePlugin, UnidentifiedImageError
from torch import Tensor
from torchvision.io import ImageReadMode

from sslkit.data.bands import (
    NUMPY_START,
    TIFF_STARTS,
    TiffPage,
    as_bands,
    different_pages,
    fit_channels,
    read_npy,
    read_tiff,
    tiff_pages,
)
from sslkit.errors import UnreadableImage

JPEG_START, PNG_START = b"\xff\xd8\xff", b"\x89PNG"
COLOUR_MODES = ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "CMYK", "YCbCr", "HSV", "LAB")
PNG_DEPTH, PNG_KIND, PNG_GREY = 24, 25, 0
"""Offsets of the bit depth and the colour type in a PNG file, and the colour type of grey images."""

JPEG2000_SIZE, JPEG2000_DEPTH = b"\xff\x4f\xff\x51", 42
"""The first markers of a JPEG 2000 stream, and the offset of the bit depth after them."""

WHITE_IS_ZERO = 0
"""A photometric interpretation of TIFF; Pillow inverts its 8-bit images alone."""

MAX_PIXELS = 178_956_970
"""Pixels of an image above which Pillow suspects an attack."""

LIFTING = threading.Lock()

READ_MODES = {1: ImageReadMode.GRAY, 3: ImageReadMode.RGB}


def decode(data: bytes, name: str, channels: int = 3, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Return an image file as (channels, H, W) in its own dtype: uint8, uint16 (16-bit files) or float32.

    Colours that Pillow decodes keep its layout in memory, channels last.

    Colour is converted to grey and grey to colour; alpha is dropped, as Pillow's ``convert("RGB")`` does; EXIF rotation
    is applied; of an animation the first frame is read. Any other number of channels must be that of the file: .npy
    arrays (see `sslkit.data.bands.read_npy`) and, with the package ``tifffile``, TIFF of many bands or pages.

    Args:
        data: the whole file.
        name: name of the file for error messages.
        channels: number of channels to return.
        max_pixels: width times height of the largest image to decode; a small file may hold billions.

    Raises:
        UnreadableImage: the file is empty, truncated, damaged or no image, or has bands that would be dropped.
    """
    try:
        return fit_channels(_beyond_limits(lambda: _read(data, channels, max_pixels)), channels)
    except Exception as error:  # decoders raise nearly every kind of exception on damaged files
        raise _unreadable(name, error) from error


def decode_mask(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Tensor:
    """Return a mask file as (H, W): palette indices or grey values as they are stored.

    Args:
        data: the whole file.
        name: name of the file for error messages.
        max_pixels: as for `decode`.

    Raises:
        UnreadableImage: the file is damaged, or its bands differ.
    """
    try:
        bands = _beyond_limits(lambda: _stored(data, max_pixels))
    except Exception as error:  # as above
        raise _unreadable(name, error) from error
    # A grey mask saved as RGB has three equal bands.
    if not (bands[:3] == bands[:1]).all():
        raise UnreadableImage(name, "a mask has one band, this is a picture in colour")
    return bands[0]


def _unreadable(name: str, error: Exception) -> UnreadableImage:
    if isinstance(error, UnidentifiedImageError):
        return UnreadableImage(name, "no image format that can be read")
    return UnreadableImage(name, str(error).strip().split("\n")[0] or type(error).__name__)


def _beyond_limits(read: Callable[[], Tensor]) -> Tensor:
    """Return what ``read`` does, where necessary without Pillow's limits to pixels and to the text in a PNG.

    Pillow has them for the whole process, so that they are lifted only for a file that needs it.
    """
    try:
        return read()
    except (Image.DecompressionBombError, ValueError) as error:
        if isinstance(error, ValueError) and "decompressed data too large" not in str(error).lower():
            raise
    with LIFTING:
        limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
        Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = None, PngImagePlugin.MAX_TEXT_MEMORY
        try:
            return read()
        finally:
            Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK = limits


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise ValueError(
            f"{width:,} x {height:,} pixels are more than data.max_pixels, {max_pixels:,}; where such images are "
            f"meant: --data.max_pixels {width * height}"
        )


def _stored(data: bytes, max_pixels: int) -> Tensor:
    if data.startswith(NUMPY_START):
        return read_npy(data, 1)
    with Image.open(io.BytesIO(data)) as picture:
        _check_size(picture.size, max_pixels)
        _turn_upright(picture)
        return as_bands(np.asarray(picture), len(picture.getbands()))


def _read(data: bytes, channels: int, max_pixels: int) -> Tensor:
    if not data:
        raise ValueError("the file is empty")
    if data.startswith(NUMPY_START):
        return read_npy(data, channels)
    if data.startswith(JPEG_START):
        # A broken download is often padded with zeros, which decode as grey; without them Pillow reports truncation.
        data = data.rstrip(b"\0")
    if data.startswith(TIFF_STARTS):
        return _read_tiff(data, channels, max_pixels)
    with Image.open(io.BytesIO(data)) as picture:
        _check_size(picture.size, max_pixels)
        _check_bits(picture, data)
        if picture.format == "PNG" and data[PNG_DEPTH] > 8 and data[PNG_KIND] != PNG_GREY:
            picture.verify()  # checks the checksums
            return _deep_png(data, channels)
        return _pixels(picture, channels)


def _read_tiff(data: bytes, channels: int, max_pixels: int) -> Tensor:
    pages = tiff_pages(data)
    for page in pages:
        _check_size(page.size, max_pixels)
    if any(page.is_beyond_pillow for page in pages):
        return read_tiff(data, channels, pages[0].num_alpha)
    try:
        picture = Image.open(io.BytesIO(data))
    except UnidentifiedImageError:
        return read_tiff(data, channels)
    with picture:
        if len(pages) == 1:
            return _pixels(picture, channels, pages[0])
        bands = []
        for page in pages:
            picture.seek(page.number)
            bands.append(_as_stored(picture, page))
    if len({(image.shape, image.dtype) for image in bands}) > 1:
        raise ValueError(different_pages([tuple(image.shape) for image in bands]))
    return torch.cat(bands)


def _check_bits(picture: Image.Image, data: bytes) -> None:
    """Raise an error where Pillow keeps 8 bits of deeper colours, in silence."""
    if picture.format == "JPEG2000":
        start = data.find(JPEG2000_SIZE)
        bits = (data[start + JPEG2000_DEPTH] & 0x7F) + 1 if start >= 0 else 8
    else:
        (codec, _, _, options), *_ = getattr(picture, "tile", None) or [("", None, 0, ())]
        bits = int(options[-1]).bit_length() if codec == "ppm" else 8  # the largest value
    if bits > 8 and len(picture.getbands()) > 1:
        raise ValueError(
            f"its colours have {bits} bits, of which Pillow keeps 8; save them as 16-bit TIFF, PNG or .npy"
        )


def _pixels(picture: Image.Image, channels: int, page: TiffPage | None = None) -> Tensor:
    _turn_upright(picture)
    if picture.mode == "P" and "transparency" in picture.info:
        picture = picture.convert("RGBA")  # Pillow warns where this is converted to RGB directly
    if picture.mode in COLOUR_MODES and channels in (1, 3):
        mode = "RGB" if channels == 3 else "L"
        if picture.mode == "LAB":
            picture = picture.convert("RGB")  # Pillow converts it to nothing else
        picture = picture if picture.mode == mode or (page and page.is_signed) else picture.convert(mode)
    if picture.mode == "RGB" and not (page and page.is_signed):
        # Pillow's own layout, channels last, which torchvision resizes faster, to the same bits, than channels first.
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1)
    return _as_stored(picture, page)


def _as_stored(picture: Image.Image, page: TiffPage | None) -> Tensor:
    """Return the bands of a picture, with what Pillow does not take from the tags of a TIFF file."""
    pixels = np.asarray(picture)
    if page and page.is_signed and page.bits in (8, 16):
        pixels = pixels.view(np.int8) if page.bits == 8 else pixels.astype(np.int16)
    elif page and page.bits == 32 and not page.is_signed and pixels.dtype == np.int32:
        pixels = pixels.view(np.uint32)
    elif page and page.photometric == WHITE_IS_ZERO and picture.mode.startswith("I;16"):
        pixels = (1 << page.bits) - 1 - pixels
    return as_bands(pixels, len(picture.getbands()))


def _turn_upright(picture: Image.Image) -> None:
    picture.load()
    # The pixels have been read, so an error can only come from damaged metadata: the image is usable without rotation.
    with suppress(SyntaxError, struct.error, ValueError, TypeError, LookupError):
        ImageOps.exif_transpose(picture, in_place=True)


def _deep_png(data: bytes, channels: int) -> Tensor:
    """Decode a PNG of 16-bit colours by torchvision, since Pillow keeps 8 bits of them.

    Only for files whose checksums have been verified: this decoder ends the process on some damaged ones.
    """
    if not hasattr(torch.ops.image, "decode_image"):
        raise ValueError("16-bit colours in PNG need a torchvision that still decodes images; use TIFF or .npy")
    mode = READ_MODES.get(channels, ImageReadMode.UNCHANGED)
    # The operator rather than torchvision's function around it, which warns at every call that it is deprecated.
    image: Tensor = torch.ops.image.decode_image(torch.frombuffer(bytearray(data), dtype=torch.uint8), mode.value, True)
    return image
