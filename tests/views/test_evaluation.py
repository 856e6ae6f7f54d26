"""The view of evaluators is that of the DINO paper."""

import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from sslkit.errors import DataError, RecipeError
from sslkit.types import IMAGENET_MEAN, IMAGENET_STD
from sslkit.views import EvaluationView


def test_equals_the_papers_transform():
    image = torch.randint(0, 256, (3, 300, 411), dtype=torch.uint8)
    expected = functional.resize(image, [256], InterpolationMode.BICUBIC, antialias=True)
    expected = functional.center_crop(expected, [224, 224]).float() / 255
    expected = functional.normalize(expected, IMAGENET_MEAN, IMAGENET_STD)
    assert (EvaluationView()(image) - expected).abs().max() < 1e-6


def test_an_image_of_the_right_size_keeps_its_pixels():
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
    view = EvaluationView(32, 32, mean=[0, 0, 0], std=[1, 1, 1])(image)
    assert torch.equal(view, image.float() / 255)


@pytest.mark.parametrize("dtype", [torch.uint16, torch.float32])
def test_bands_and_dtypes(dtype):
    image = torch.rand(5, 40, 52)
    image = (image * 65535).to(torch.int32).to(dtype) if dtype == torch.uint16 else image
    view = EvaluationView(16, 20, channels=5, mean=[0.5] * 5, std=[0.5] * 5)(image)
    assert view.shape == (5, 16, 16)
    assert view.dtype == torch.float32
    assert view.abs().max() <= 1


def test_refusals():
    with pytest.raises(RecipeError, match="resize"):
        EvaluationView(size=224, resize=200)
    with pytest.raises(RecipeError, match="size"):
        EvaluationView(size=0)
    with pytest.raises(RecipeError, match="mean"):
        EvaluationView(channels=4)
    with pytest.raises(DataError, match="1 channels"):
        EvaluationView()(torch.zeros(1, 300, 300))


def test_channels_last_gives_the_same_batch():
    last = torch.randint(0, 256, (300, 411, 3), dtype=torch.uint8).permute(2, 0, 1)
    views = [torch.stack([EvaluationView()(image)] * 2) for image in (last, last.contiguous())]
    assert torch.equal(*views)
    assert views[0].stride() == views[1].stride()
