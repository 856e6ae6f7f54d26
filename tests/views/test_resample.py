import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

from sslkit.views import resample
from sslkit.views.boxes import draw_boxes
from sslkit.views.draws import uniforms
from sslkit.views.resample import crop_canvases, crop_picture, fit_square


def theirs(picture, box, flip, size, interpolation="bicubic"):
    mode = InterpolationMode(interpolation)
    crop = functional.resized_crop(picture, *box.tolist(), [size, size], mode, antialias=True)
    crop = functional.horizontal_flip(crop) if flip else crop
    return crop.clamp(0, 1) if picture.is_floating_point() else crop


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize("flip", [False, True])
def test_picture_equals_torchvision(flip, interpolation):
    picture = torch.randint(0, 256, (3, 61, 83), dtype=torch.uint8)
    box = np.array([5, 9, 50, 41])
    crop = crop_picture(picture, box, flip, 24, interpolation)
    assert crop.dtype == torch.uint8
    assert torch.equal(crop, theirs(picture, box, flip, 24, interpolation))
    picture = (torch.rand(5, 61, 83) > 0.5).double()
    mine = crop_picture(picture, box, flip, 24, interpolation)
    assert torch.equal(mine, theirs(picture, box, flip, 24, interpolation))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
@pytest.mark.parametrize(("shape", "size"), [((3, 32, 32), 32), ((1, 21, 34), 17), ((13, 40, 64), 50), ((3, 8, 8), 16)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-4), (torch.float64, 1e-11)])
def test_canvases_equal_torchvision(shape, size, dtype, tolerance, interpolation):
    canvases = torch.rand(6, *shape, dtype=dtype)
    draws = uniforms(0, 0, range(6), range(4))
    boxes = draw_boxes(draws, np.full(6, shape[1]), np.full(6, shape[2]), (0.05, 1.0))
    flips = draws[..., 0] < 0.5
    crops = crop_canvases(canvases, torch.from_numpy(boxes), torch.from_numpy(flips), size, interpolation)
    assert crops.shape == (4, 6, shape[0], size, size)
    for v in range(4):
        for b in range(6):
            expected = theirs(canvases[b], boxes[b, v], flips[b, v], size, interpolation)
            assert (crops[v, b] - expected).abs().max() < tolerance


def test_large_canvases_on_the_cpu_equal_matrix_products(monkeypatch):
    canvases = torch.rand(3, 3, 80, 80)
    draws = uniforms(0, 0, range(3), range(2))
    boxes = draw_boxes(draws, np.full(3, 80), np.full(3, 80), (0.05, 1.0))
    loop = crop_canvases(canvases, torch.from_numpy(boxes), torch.from_numpy(draws[..., 0] < 0.5), 24)
    monkeypatch.setattr(resample, "MATMUL_SIDE", 1000)
    matmul = crop_canvases(canvases, torch.from_numpy(boxes), torch.from_numpy(draws[..., 0] < 0.5), 24)
    assert not torch.equal(loop, matmul)  # two ways indeed
    assert (loop - matmul).abs().max() < 1e-4


def test_overshoot_is_clamped():
    canvases = (torch.rand(4, 1, 16, 16) > 0.5).float()
    boxes = np.tile([0, 0, 16, 16], (4, 1, 1))
    crops = crop_canvases(canvases, torch.from_numpy(boxes), torch.from_numpy(np.zeros((4, 1), bool)), 40)
    assert crops.min() == 0
    assert crops.max() == 1
    picture = crop_picture(canvases[0], boxes[0, 0].tolist(), False, 40)
    assert picture.min() == 0
    assert picture.max() == 1


def test_fit_square():
    picture = torch.randint(0, 256, (3, 50, 90), dtype=torch.uint8)
    expected = functional.center_crop(
        functional.resize(picture, [40], InterpolationMode.BICUBIC, antialias=True), [32, 32]
    )
    assert torch.equal(fit_square(picture, 40, 32), expected)
    assert torch.equal(fit_square(picture, 50, 50), functional.center_crop(picture, [50, 50]))


@pytest.mark.parametrize("interpolation", ["bicubic", "bilinear"])
def test_channels_last_gives_the_same_bits(interpolation):
    generator = np.random.default_rng(0)
    for _ in range(50):
        height, width = generator.integers(2, 90, 2).tolist()
        last = torch.from_numpy(generator.integers(0, 256, (height, width, 3), dtype=np.uint8)).permute(2, 0, 1)
        first = last.contiguous()
        box = [height // 4, width // 5, height - height // 4, width - width // 5]
        for size in (2, 17, 32, 96):
            crops = [crop_picture(each, box, True, size, interpolation) for each in (last, first)]
            assert torch.equal(*crops)
            assert torch.stack(crops[:1]).stride() == torch.stack(crops[1:]).stride()
            assert torch.equal(*(fit_square(each, size + 3, size) for each in (last, first)))
