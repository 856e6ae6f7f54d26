"""Bands are never dropped or invented, whatever the format."""

import io
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
    "near infrared": tiff(np.zeros((9, 8, 4), np.uint16)),
}
PAGES = [
    encode(GREY, "TIFF", save_all=True, append_images=[GREY, GREY], compression=kind) for kind in (None, "tiff_lzw")
]


@pytest.mark.parametrize("kind", BEYOND_PILLOW)
def test_tiff_beyond_pillow_names_the_package_that_reads_it(kind, monkeypatch):
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(UnreadableImage, match="pip install tifffile"):
        decode(BEYOND_PILLOW[kind], kind, 3)


def test_tifffile_reads_every_band():
    pytest.importorskip("tifffile", reason="tifffile is an optional dependency")
    bands = np.random.default_rng(0).integers(0, 65535, (9, 8, 6)).astype(np.uint16)
    assert np.array_equal(decode(tiff(bands), "bands", 6).numpy(), bands.transpose(2, 0, 1))
    colour = decode(tiff(bands[..., :3]), "colour", 3)
    assert np.array_equal(colour.numpy(), bands[..., :3].transpose(2, 0, 1))
    with pytest.raises(UnreadableImage, match="6 bands"):
        decode(tiff(bands), "bands", 3)


def written(array, **options):
    """A TIFF of tifffile, which can say what the bands mean."""
    tifffile = pytest.importorskip("tifffile", reason="tifffile is an optional dependency")
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, array, **options)
    return buffer.getvalue()


BYTES = np.random.default_rng(0).integers(0, 255, (9, 8, 13), dtype=np.uint8)


@pytest.mark.parametrize("data", PAGES)
def test_pages_are_bands_whatever_their_compression(data):
    assert torch.equal(decode(data, "pages", 3), chw(GREY).expand(3, -1, -1))
    with pytest.raises(UnreadableImage, match=r"3 bands, data.channels is 4"):
        decode(data, "pages", 4)


def test_pages_in_colour_and_of_other_sizes():
    two = encode(RGB, "TIFF", save_all=True, append_images=[RGB.rotate(180)])
    assert torch.equal(decode(two, "two", 6), torch.cat([chw(RGB), chw(RGB.rotate(180))]))
    with pytest.raises(UnreadableImage, match=r"6 bands, data.channels is 3"):
        decode(two, "two", 3)
    uneven = encode(GREY, "TIFF", save_all=True, append_images=[GREY.resize((4, 5))])
    with pytest.raises(UnreadableImage, match=r"its 2 pages are of different kinds \(1 x 37 x 53, 1 x 5 x 4\); save"):
        decode(uneven, "uneven", 1)


def test_a_smaller_copy_of_a_page_is_no_page():
    tifffile = pytest.importorskip("tifffile", reason="tifffile is an optional dependency")
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(np.asarray(RGB), photometric="rgb")
        file.write(np.asarray(RGB)[::2, ::2], photometric="rgb", subfiletype=1)
    assert torch.equal(decode(buffer.getvalue(), "pyramid", 3), chw(RGB))


def test_an_extra_sample_is_alpha_only_where_the_file_says_so():
    infrared = written(BYTES[..., :4], photometric="rgb", extrasamples=["unspecified"])
    assert np.array_equal(decode(infrared, "nir", 4).numpy(), BYTES[..., :4].transpose(2, 0, 1))
    for channels in (1, 3):
        with pytest.raises(UnreadableImage, match=rf"4 bands, data.channels is {channels}"):
            decode(infrared, "nir", channels)
    pair = written(BYTES[..., :2], photometric="minisblack", planarconfig="contig", extrasamples=["unspecified"])
    assert np.array_equal(decode(pair, "pair", 2).numpy(), BYTES[..., :2].transpose(2, 0, 1))
    for array in (BYTES[..., :4], BYTES[..., :4].astype(np.uint16) * 257):
        alpha = written(array, photometric="rgb", extrasamples=["unassalpha"])
        assert np.array_equal(decode(alpha, "alpha", 3).numpy(), array[..., :3].transpose(2, 0, 1))
        assert decode(alpha, "alpha", 4).shape[0] == 4


@pytest.mark.parametrize("bigtiff", [False, True])
def test_thirteen_bands_between_the_pixels_are_read_without_a_word(bigtiff, caplog, capsys):
    data = written(BYTES, photometric="minisblack", planarconfig="contig", bigtiff=bigtiff)
    assert np.array_equal(decode(data, "sentinel", 13).numpy(), BYTES.transpose(2, 0, 1))
    with pytest.raises(UnreadableImage, match=r"13 bands, data.channels is 3"):
        decode(data, "sentinel", 3)
    assert (caplog.text, capsys.readouterr().err) == ("", "")


@pytest.mark.parametrize(
    ("array", "reason"),
    [
        (np.full((9, 8), -1, np.int8), "int8; .* float32, which holds their values from -1 to -1"),
        (np.full((9, 8), -300, np.int16), "int16; .* from -300 to -300, and set data.value_range"),
        (np.full((9, 8), 4_000_000_000, np.uint32), "uint32; .* from 4,000,000,000 to 4,000,000,000"),
    ],
)
def test_values_that_do_not_fit_are_refused_by_their_own_name(array, reason):
    for channels in (1, 3):
        with pytest.raises(UnreadableImage, match=reason):
            decode(written(array), "x", channels)
    inside = np.full((9, 8), 7, array.dtype)
    assert decode(written(inside), "x", 1).unique().tolist() == [7]


@pytest.mark.parametrize(("dtype", "expected"), [(np.uint8, 250), (np.uint16, 65530)])
def test_white_may_be_zero(dtype, expected):
    assert decode(written(np.full((9, 8), 5, dtype), photometric="miniswhite"), "x", 1).unique().tolist() == [expected]


def test_lab_becomes_grey_too():
    lab = Image.merge("LAB", RGB.split())
    data = encode(lab, "TIFF")
    assert torch.equal(decode(data, "lab", 1), chw(lab.convert("RGB").convert("L")))


def test_deep_colours_that_pillow_would_flatten_are_refused():
    assert decode(b"P6\n2 1\n255\n" + bytes(6), "x", 3).shape == (3, 1, 2)
    with pytest.raises(UnreadableImage, match="16 bits, of which Pillow keeps 8"):
        decode(b"P6\n2 1\n65535\n" + bytes(12), "x", 3)
    eight = encode(RGB, "JPEG2000")
    assert torch.equal(decode(eight, "x", 3), chw(RGB))
    depth = eight.find(b"\xff\x4f\xff\x51") + 42
    deep = eight[:depth] + b"\x0b" + eight[depth + 1 :]
    with pytest.raises(UnreadableImage, match="12 bits, of which Pillow keeps 8"):
        decode(deep, "x", 3)
