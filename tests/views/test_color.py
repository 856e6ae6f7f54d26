import colorsys

import pytest
import torch
from torchvision.transforms.v2 import functional

from sslkit.views.color import brightness_, contrast_, grayscale_, hue_, saturation_, solarize_

FACTORS = {brightness_: functional.adjust_brightness, contrast_: functional.adjust_contrast}
RGB_FACTORS = {saturation_: functional.adjust_saturation}


def pictures(channels=3, dtype=torch.float32, num=9, size=(13, 7)):
    """Noise, with the corners of the colour cube, grays and ties among the pixels."""
    images = torch.rand(num, channels, *size, dtype=dtype)
    images[:, :, 0] = images[:, :, 0].round()
    images[:, :, 1] = images[:, :1, 1]
    images[:, :2, 2] = images[:, :1, 2]
    return images


@pytest.mark.parametrize("operation", [*FACTORS, *RGB_FACTORS])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_factors_equal_torchvision(operation, dtype, tolerance):
    images, factors = pictures(dtype=dtype), torch.rand(9, dtype=torch.float64) * 2
    expected = torch.stack([{**FACTORS, **RGB_FACTORS}[operation](i, float(f)) for i, f in zip(images, factors)])
    changed = operation(images, factors)
    assert changed is images
    assert (changed - expected).abs().max() < tolerance


@pytest.mark.parametrize("operation", FACTORS)
def test_one_channel_equals_torchvision(operation):
    images, factors = pictures(1), torch.rand(9) * 2
    expected = torch.stack([FACTORS[operation](i, float(f)) for i, f in zip(images, factors)])
    assert (operation(images, factors) - expected).abs().max() < 1e-6


def test_contrast_of_many_bands_is_about_their_mean():
    images, factors = torch.rand(2, 13, 4, 4) * 0.2 + 0.4, torch.tensor([0.5, 1.2])
    mean = images.mean((1, 2, 3), keepdim=True)
    expected = mean + (images - mean) * factors.view(-1, 1, 1, 1)
    assert (contrast_(images, factors) - expected).abs().max() < 1e-6


def test_hue_equals_torchvision():
    images, turns = pictures(num=40), torch.linspace(-0.5, 0.5, 40)
    expected = torch.stack([functional.adjust_hue(i, float(t)) for i, t in zip(images, turns)])
    assert (hue_(images, turns) - expected).abs().max() < 5e-6


def test_hue_equals_colorsys_in_double():
    images, turns = pictures(dtype=torch.float64), torch.rand(9, dtype=torch.float64) - 0.5
    expected = torch.empty_like(images)
    for n, turn in enumerate(turns.tolist()):
        for y in range(images.shape[2]):
            for x in range(images.shape[3]):
                h, s, v = colorsys.rgb_to_hsv(*images[n, :, y, x].tolist())
                expected[n, :, y, x] = torch.tensor(colorsys.hsv_to_rgb((h + turn) % 1, s, v), dtype=torch.float64)
    assert (hue_(images, turns) - expected).abs().max() < 1e-11


def test_hue_by_a_third_permutes_channels():
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    assert hue_(red.clone(), torch.tensor([1 / 3])).flatten().tolist() == pytest.approx([0, 1, 0], abs=1e-6)
    assert hue_(red.clone(), torch.tensor([-1 / 3])).flatten().tolist() == pytest.approx([0, 0, 1], abs=1e-6)


def test_hue_leaves_almost_gray_pixels_in_range():
    images = 0.5 + torch.rand(4, 3, 9, 9) * 1e-7
    assert (hue_(images.clone(), torch.rand(4) - 0.5) - images).abs().max() < 1e-6


def test_grayscale_and_solarize_equal_torchvision():
    images = pictures()
    expected = functional.rgb_to_grayscale(images, num_output_channels=3)
    assert (grayscale_(images.clone()) - expected).abs().max() < 1e-7
    images[0, 0, 0, 0] = 0.5
    assert torch.equal(solarize_(images.clone()), functional.solarize(images, 0.5))


@pytest.mark.parametrize("operation", [brightness_, contrast_, saturation_, hue_])
@pytest.mark.parametrize("size", [(5, 7), (32, 32), (50, 31)])
def test_an_image_has_the_same_bits_in_every_batch(operation, size):
    images, amounts = pictures(num=7, size=size), torch.rand(7, dtype=torch.float64) * 0.5
    whole = operation(images.clone(), amounts)
    for n in range(7):
        assert torch.equal(operation(images[n : n + 1].clone(), amounts[n : n + 1])[0], whole[n])
