import struct
import zlib

import numpy as np
import pytest
import torch
from encoded import GREY, RGB, H, W, chw, encode, npy
from PIL import Image, PngImagePlugin

from sslkit.data.decode import decode, decode_mask
from sslkit.errors import UnreadableImage

ALPHA = Image.fromarray(np.random.default_rng(0).integers(0, 255, (H, W), dtype=np.uint8))


RGBA = Image.merge("RGBA", (*RGB.split(), ALPHA))


WORDS = (np.arange(H * W).reshape(H, W) * 33).astype(np.uint16)


def rotated() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif


PICTURES = {
    "grey png": (encode(GREY, "PNG"), GREY.convert("RGB"), 0),
    "grey jpeg": (encode(GREY, "JPEG", quality=95), GREY.convert("RGB"), 3),
    "jpeg": (encode(RGB, "JPEG", quality=95), RGB, 6),
    "cmyk jpeg": (encode(RGB.convert("CMYK"), "JPEG", quality=95), RGB, 8),
    "rgba png": (encode(RGBA, "PNG"), RGB, 0),
    "grey with alpha": (encode(Image.merge("LA", (GREY, ALPHA)), "PNG"), GREY.convert("RGB"), 0),
    "palette": (encode(RGB.quantize(32), "PNG"), RGB.quantize(32).convert("RGB"), 0),
    "palette with alpha": (encode(RGBA.quantize(32), "PNG"), RGBA.quantize(32).convert("RGB"), 0),
    "one bit": (encode(RGB.convert("1"), "PNG"), RGB.convert("1").convert("RGB"), 0),
    "webp": (encode(RGB, "WEBP", lossless=True), RGB, 0),
    "gif": (encode(RGB.quantize(32), "GIF"), RGB.quantize(32).convert("RGB"), 0),
    "moving gif": (encode(GREY, "GIF", save_all=True, append_images=[GREY.rotate(90)]), GREY.convert("RGB"), 0),
    "bmp": (encode(RGB, "BMP"), RGB, 0),
    "tiff": (encode(RGB, "TIFF"), RGB, 0),
    "cmyk tiff": (encode(RGB.convert("CMYK"), "TIFF"), RGB.convert("CMYK").convert("RGB"), 0),
    "rotated jpeg": (encode(RGB, "JPEG", quality=95, exif=rotated()), RGB.rotate(-90, expand=True), 6),
    "rotated png": (encode(RGB, "PNG", exif=rotated()), RGB.rotate(-90, expand=True), 0),
    "rotated webp": (encode(RGB, "WEBP", lossless=True, exif=rotated()), RGB.rotate(-90, expand=True), 0),
    "rotated tiff": (encode(RGB, "TIFF", exif=rotated()), RGB.rotate(-90, expand=True), 0),
}


@pytest.mark.parametrize("kind", PICTURES)
def test_every_kind_of_picture_comes_out_in_colour_and_in_grey(kind):
    data, expected, tolerance = PICTURES[kind]
    image = decode(data, kind, channels=3)
    assert image.dtype == torch.uint8
    assert image.permute(1, 2, 0).is_contiguous()  # Pillow's layout, which resizes faster
    assert (image.int() - chw(expected).int()).abs().max() <= tolerance
    grey = decode(data, kind, channels=1)
    assert grey.shape == (1, *image.shape[1:])
    assert (grey.int() - chw(expected.convert("L")).int()).abs().max() <= tolerance + 2


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_stay_sixteen_bits(kind):
    data = encode(Image.fromarray(WORDS), kind)
    for channels in (1, 3):
        image = decode(data, kind, channels)
        assert image.dtype == torch.uint16
        assert np.array_equal(image.numpy(), np.broadcast_to(WORDS, (channels, H, W)))


def damaged() -> dict[str, bytes]:
    jpeg, progressive = encode(RGB, "JPEG"), encode(RGB, "JPEG", progressive=True)
    files = {f"jpeg cut at {share}": jpeg[: int(share * len(jpeg))] for share in (0.01, 0.3, 0.7, 0.95, 0.999)}
    files["progressive jpeg, cut"] = progressive[: len(progressive) // 2]
    files["jpeg filled with zeros"] = jpeg[: len(jpeg) // 2] + bytes(len(jpeg) // 2)
    for kind in ("PNG", "GIF", "WEBP", "BMP", "TIFF"):
        data = encode(RGB, kind)
        files[f"{kind}, cut"] = data[: len(data) // 2]
    array = npy(np.zeros((3, 9, 8), np.uint8))
    return files | {
        "empty": b"",
        "text": b"<html>404 not found</html>",
        "png, flipped byte": encode(RGB, "PNG")[:60] + b"\x55" + encode(RGB, "PNG")[61:],
        "npy, cut": array[:-5],
        "npy of objects": npy(np.array([{}, {}])),
        "sixteen-bit colour png, cut": sixteen_bit_png()[:-30],
    }


def sixteen_bit_png() -> bytes:
    rows = b"".join(b"\0" + np.stack([row] * 3, -1).astype(">u2").tobytes() for row in WORDS)

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", W, H, 16, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", damaged())
def test_damage_is_named(kind):
    with pytest.raises(UnreadableImage, match=r"folder/picture: .+") as caught:
        decode(damaged()[kind], "folder/picture", 3)
    assert "0x" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
@pytest.mark.filterwarnings("ignore:(Corrupt EXIF|Truncated File):UserWarning")
def test_wherever_a_file_is_cut_it_is_refused_or_whole(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8))
    data = encode(noise, kind)
    whole = decode(data, "x")
    refused = 0
    for end in range(0, len(data), 11):
        try:
            assert torch.equal(decode(data[:end], "x"), whole)
        except UnreadableImage:
            refused += 1
    assert refused > 0.7 * len(data) / 11


def test_sixteen_bit_colour_png_keeps_its_bits_or_is_refused(monkeypatch):
    assert np.array_equal(decode(sixteen_bit_png(), "x", 3).numpy(), np.stack([WORDS] * 3))
    monkeypatch.setattr(torch.ops, "image", object())
    with pytest.raises(UnreadableImage, match="16-bit colours in PNG"):
        decode(sixteen_bit_png(), "x", 3)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
@pytest.mark.parametrize("exif", [b"Exif\0\0garbage garbage", b"Exif\0\0II*\0", b"Exif\0\0II*\0\xff\xff\xff\xff"])
@pytest.mark.filterwarnings("ignore:Corrupt EXIF:UserWarning")
def test_damaged_metadata_does_not_cost_the_picture(kind, exif):
    assert torch.equal(decode(encode(GREY, kind, exif=exif), "x"), decode(encode(GREY, kind), "x"))


def test_zeros_after_a_whole_jpeg_do_no_harm():
    data = encode(RGB, "JPEG")
    assert torch.equal(decode(data + bytes(500), "x"), decode(data, "x"))


def test_masks_keep_the_numbers_that_were_stored():
    indices = np.random.default_rng(0).integers(0, 21, (9, 8), dtype=np.uint8)
    palette = Image.fromarray(indices)
    palette.putpalette(list(range(256)) * 3)
    for data in (encode(palette, "PNG"), encode(Image.fromarray(indices), "PNG"), npy(indices)):
        assert np.array_equal(decode_mask(data, "m").numpy(), indices)
    assert np.array_equal(decode_mask(encode(GREY.convert("RGB"), "PNG"), "m").numpy(), np.array(GREY))
    with pytest.raises(UnreadableImage, match="one band"):
        decode_mask(encode(RGB, "PNG"), "m")
    with pytest.raises(UnreadableImage, match="m: no image format"):
        decode_mask(b"", "m")


def test_long_text_and_profiles_do_not_cost_the_picture():
    text = PngImagePlugin.PngInfo()
    text.add_text("prompt", "a" * 3_000_000, zip=True)
    limits = Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK
    for options in ({"pnginfo": text}, {"icc_profile": bytes(3_000_000)}):
        data = encode(RGB, "PNG", **options)
        assert torch.equal(decode(data, "x"), chw(RGB))
        assert torch.equal(decode_mask(encode(GREY, "PNG", **options), "x"), chw(GREY)[0])
    assert limits == (Image.MAX_IMAGE_PIXELS, PngImagePlugin.MAX_TEXT_CHUNK)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF"])
def test_the_largest_image_is_the_users_to_say(kind, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)  # twice as many are an error of Pillow
    data = encode(GREY, kind)
    with pytest.raises(
        UnreadableImage, match=r"x: 53 x 37 pixels are more than data.max_pixels, 1,960; where"
    ) as caught:
        decode(data, "x", 1, max_pixels=53 * 37 - 1)
    assert str(caught.value).endswith("--data.max_pixels 1961")
    assert torch.equal(decode(data, "x", 1, max_pixels=53 * 37), chw(GREY))
    assert Image.MAX_IMAGE_PIXELS == 500


def test_damaged_tags_of_tiff_are_named():
    data = encode(RGB, "TIFF")
    for end in (4, 8, 20):
        with pytest.raises(UnreadableImage, match="its TIFF tags are damaged or cut off"):
            decode(data[:end], "x")


def test_colours_keep_the_layout_of_pillow():
    data = encode(RGB, "PNG")
    image = decode(data, "a.png")
    assert torch.equal(image, chw(RGB))
    assert image.permute(1, 2, 0).is_contiguous()
    image.fill_(0)  # a copy: Pillow's array is read-only
    assert torch.equal(decode(data, "a.png"), chw(RGB))
