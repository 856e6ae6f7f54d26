import pytest
import torch

from sslkit.backbones.raw_pixels import RawPixels
from sslkit.errors import NotSupported, RecipeError, UnknownName


def test_small_images_are_flattened_as_they_are():
    images = torch.randn(3, 2, 5, 7)
    assert torch.equal(RawPixels(in_chans=2)(images).cls, images.flatten(1))


def test_large_images_are_averaged_to_32_px():
    images = torch.randn(2, 3, 64, 96)
    blocks = images.view(2, 3, 32, 2, 32, 3).mean((3, 5))
    torch.testing.assert_close(RawPixels()(images).cls, blocks.flatten(1))
    assert RawPixels()(images).cls.shape[1] == RawPixels().embed_dim


def test_centered_variants_do_not_see_brightness():
    images = torch.rand(2, 3, 32, 32, dtype=torch.float64)
    brighter = images + torch.tensor([0.3, -0.2], dtype=torch.float64).view(2, 1, 1, 1)
    for variant in ("centered", "gray-centered"):
        backbone = RawPixels(variant)
        torch.testing.assert_close(backbone(images).cls, backbone(brighter).cls, atol=1e-12, rtol=0)
        assert backbone(images).cls.shape == (2, backbone.embed_dim)
    assert not torch.allclose(RawPixels()(images).cls, RawPixels()(brighter).cls)


def test_gray_is_the_mean_of_the_channels():
    images = torch.randn(2, 4, 3, 3)
    gray = images.mean(1).flatten(1)
    torch.testing.assert_close(RawPixels("gray-centered", 4)(images).cls, gray - gray.mean(1, keepdim=True))


@pytest.mark.parametrize("variant", RawPixels.VARIANTS)
def test_it_is_saved_by_its_arguments(variant, tmp_path):
    RawPixels(variant, in_chans=2, size=8).save(tmp_path / "new")
    loaded, images = RawPixels.load(tmp_path / "new"), torch.randn(2, 2, 16, 16)
    assert torch.equal(loaded(images).cls, RawPixels(variant, 2, 8)(images).cls)


def test_bad_input_is_refused():
    with pytest.raises(UnknownName, match="Did you mean 'centered'"):
        RawPixels("centred")
    with pytest.raises(RecipeError, match="in_chans=3, not 1"):
        RawPixels()(torch.zeros(1, 1, 4, 4))
    with pytest.raises(NotSupported):
        RawPixels()(torch.zeros(1, 3, 4, 4), mask=torch.zeros(1, 16))
