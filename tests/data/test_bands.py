"""Bands are never dropped or invented, whatever the format."""

import sys

import numpy as np
import pytest
import torch
from encoded import GREY, RGB, H, W, chw, encode, npy, tiff
from PIL import Image

from sslkit.data.decode import decode
from sslkit.errors import UnreadableImage

ALPHA = Image.fromarray(np.random.default_rng(0).integers(0, 255, (H, W), dtype=np.uint8))


RGBA = Image.merge("RGBA", (*RGB.split(), ALPHA))


def test_alpha_is_a_band_where_four_are_asked_for():
    for kind in ("PNG", "WEBP"):
        assert torch.equal(decode(encode(RGBA, kind, lossless=True, exact=True), kind, channels=4), chw(RGBA))


def test_floating_point_tiff_keeps_its_values():
    values = np.random.default_rng(0).random((5, 6), dtype=np.float32)
    assert np.array_equal(decode(encode(Image.fromarray(values), "TIFF"), "f", 1)[0].numpy(), values)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 13])
@pytest.mark.parametrize("dtype", [np.uint8, ">u2", np.float32])
def test_npy_gives_every_band_whichever_axis_holds_them(channels, dtype):
    array = (np.random.default_rng(0).random((channels, 17, 19)) * 200).astype(dtype)
    first, last = decode(npy(array), "a", channels), decode(npy(array.transpose(1, 2, 0)), "b", channels)
    assert np.array_equal(first.numpy(), array)
    assert torch.equal(first, last)
    assert first.dtype == {1: torch.uint8, 2: torch.uint16, 4: torch.float32}[np.dtype(dtype).itemsize]


def test_npy_of_other_numbers_becomes_one_of_three_dtypes():
    flags = np.random.default_rng(0).random((9, 8)) > 0.5
    assert np.array_equal(decode(npy(flags), "f", 1)[0].numpy(), flags * 255)
    assert decode(npy(np.full((9, 8), 300)), "i", 1).dtype == torch.uint16
    assert decode(npy(np.full((9, 8), 0.3)), "d", 1).dtype == torch.float32
    with pytest.raises(UnreadableImage, match="int64; store them as uint8, uint16 or float32"):
        decode(npy(np.full((9, 8), -1)), "n", 1)


@pytest.mark.parametrize(
    ("data", "channels", "reason"),
    [
        (npy(np.zeros((13, 40, 50), np.uint8)), 3, r"13 bands, data.channels is 3"),
        (npy(np.zeros((4, 9, 8), np.uint8)), 3, r"4 bands, data.channels is 3"),
        (npy(np.zeros((9, 8), np.uint8)), 13, r"1 band, data.channels is 13"),
        (encode(RGB, "PNG"), 4, r"3 bands, data.channels is 4"),
        (encode(RGB, "TIFF"), 5, r"3 bands, data.channels is 5"),
        (npy(np.zeros((2, 3, 9, 8), np.uint8)), 3, r"shape \(H, W\)"),
        (npy(np.zeros((0, 8), np.uint8)), 3, r"shape \(H, W\)"),
    ],
)
def test_bands_are_never_dropped_or_invented(data, channels, reason):
    with pytest.raises(UnreadableImage, match=reason):
        decode(data, "x", channels)


BEYOND_PILLOW = {
    "six bands": tiff(np.zeros((9, 8, 6), np.uint16)),
    "sixteen-bit colour": tiff(np.zeros((9, 8, 3), np.uint16)),
    "pages": encode(GREY, "TIFF", save_all=True, append_images=[GREY, GREY]),
}


@pytest.mark.parametrize("kind", BEYOND_PILLOW)
def test_tiff_beyond_pillow_names_the_package_that_reads_it(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(UnreadableImage, match="pip install tifffile"):
        decode(BEYOND_PILLOW[kind], kind, 3)


def test_tifffile_reads_every_band_and_page():
    pytest.importorskip("tifffile", reason="tifffile is an optional dependency")
    bands = np.random.default_rng(0).integers(0, 65535, (9, 8, 6)).astype(np.uint16)
    assert np.array_equal(decode(tiff(bands), "bands", 6).numpy(), bands.transpose(2, 0, 1))
    colour = decode(tiff(bands[..., :3]), "colour", 3)
    assert np.array_equal(colour.numpy(), bands[..., :3].transpose(2, 0, 1))
    pages = decode(BEYOND_PILLOW["pages"], "pages", 3)
    assert torch.equal(pages, chw(GREY).expand(3, -1, -1))
    with pytest.raises(UnreadableImage, match="6 bands"):
        decode(tiff(bands), "bands", 3)
