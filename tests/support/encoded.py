"""Pictures in the formats that the decoder knows."""

import io
import struct

import numpy as np
import torch
from PIL import Image

H, W = 37, 53


def smooth() -> np.ndarray:
    """A picture that survives JPEG, different in every corner and band."""
    y, x = np.mgrid[0:H, 0:W]
    return np.stack([4 * x, 6 * y, 255 - 2 * (x + y)], -1).astype(np.uint8)


RGB = Image.fromarray(smooth())


GREY = RGB.convert("L")


def encode(picture: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


def tiff(bands: np.ndarray) -> bytes:
    """A bare TIFF of (H, W, C) uint16: one strip, bands interleaved."""
    height, width, channels = bands.shape
    pixels = bands.astype("<u2").tobytes()
    bits_at = 8 + 2 + 10 * 12 + 4
    pixels_at = bits_at + 2 * channels
    tags = [(256, 3, 1, width), (257, 3, 1, height), (258, 3, channels, bits_at), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, pixels_at), (277, 3, 1, channels), (278, 3, 1, height), (279, 4, 1, len(pixels))]
    tags += [(284, 3, 1, 1)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    head = b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)
    return head + struct.pack(f"<{channels}H", *[16] * channels) + pixels


def chw(picture: Image.Image) -> torch.Tensor:
    array = np.array(picture)
    return torch.from_numpy(array[None] if array.ndim == 2 else array.transpose(2, 0, 1).copy())
