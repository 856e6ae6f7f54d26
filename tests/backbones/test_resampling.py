"""Weights of other resolutions, patch sizes and channels, against what they are meant to keep."""

import pytest
import timm
import torch
from torch.nn import functional as F

from sslkit.backbones.resampling import resample
from sslkit.backbones.timm_backbone import TimmBackbone


def vit(**model_args):
    return TimmBackbone("test_vit", model_args=model_args).model


def test_a_constant_image_looks_the_same_in_any_number_of_channels():
    """Channels that all show the same: the first convolution answers as it did for gray in 3 channels."""
    stem = torch.randn(5, 3, 7, 7, dtype=torch.float64)
    gray = torch.randn(2, 1, 9, 9, dtype=torch.float64)
    expected = F.conv2d(gray.expand(-1, 3, -1, -1), stem)
    for channels in (1, 3, 6, 9):
        model = timm.create_model("resnet18", in_chans=channels, num_classes=0)
        model.conv1 = torch.nn.Conv2d(channels, 5, 7, bias=False)
        adapted = resample(model, "conv1.weight", stem)
        assert adapted.shape == (5, channels, 7, 7)
        torch.testing.assert_close(F.conv2d(gray.expand(-1, channels, -1, -1), adapted), expected, rtol=1e-6, atol=1e-5)


def test_bands_repeat_the_three_channels_in_order():
    stem = torch.randn(64, 3, 7, 7)
    model = timm.create_model("resnet18", in_chans=5, num_classes=0)
    adapted = resample(model, "conv1.weight", stem)
    torch.testing.assert_close(adapted, stem[:, [0, 1, 2, 0, 1]] * 3 / 5)


def test_a_larger_patch_kernel_sees_an_enlarged_patch_as_before():
    """The least-squares kernel is exact where an image is enlarged, FlexiViT equation 3."""
    model = vit(patch_size=32)
    kernel, patch = torch.randn_like(vit().patch_embed.proj.weight), torch.rand(1, 3, 16, 16)
    larger = resample(model, "patch_embed.proj.weight", kernel)
    enlarged = F.interpolate(patch, (32, 32), mode="bicubic", antialias=True)
    torch.testing.assert_close(F.conv2d(enlarged, larger), F.conv2d(patch, kernel), rtol=1e-3, atol=1e-3)


def test_positions_are_those_that_timm_takes_at_the_other_resolution():
    large, small = vit().double(), vit(img_size=64).double()
    for name, weight in large.state_dict().items():
        small.state_dict()[name].copy_(resample(small, name, weight))
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert large.pos_embed.shape != small.pos_embed.shape
    torch.testing.assert_close(small.eval()(images), large.eval()(images), rtol=1e-5, atol=1e-6)


def test_a_class_token_keeps_its_position():
    model = timm.create_model("vit_tiny_patch16_224", img_size=48, num_classes=0, depth=1)
    positions = torch.randn(1, 197, 192)
    adapted = resample(model, "pos_embed", positions)
    assert adapted.shape == (1, 10, 192)
    assert torch.equal(adapted[:, 0], positions[:, 0])


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("pos_embed", (1, 12, 64)),  # without the class token 11 positions, no square
        ("pos_embed", (1, 50, 32)),
        ("patch_embed.proj.weight", (32, 3, 8, 8)),
        ("patch_embed.proj.weight", (64, 4, 8, 8)),
        ("norm.weight", (3,)),
    ],
)
def test_what_nobody_knows_stays_as_it_is(name, shape):
    weight = torch.randn(shape)
    assert resample(vit(), name, weight) is weight


def test_a_grid_that_is_not_square_is_left_alone_where_it_fits():
    model = timm.create_model("vit_tiny_patch16_224", img_size=(64, 256), num_classes=0, depth=1)
    positions = torch.randn(1, 65, 192)
    assert resample(model, "pos_embed", positions) is positions
