import math

import pytest
import torch
from torchvision.transforms.v2 import functional

from sslkit.views.blur import _convolve_, blur_, gaussian_kernels


def theirs(images, sigmas):
    taps = [2 * math.ceil(3 * sigma) + 1 for sigma in sigmas.tolist()]
    return torch.stack([functional.gaussian_blur(i, [t, t], [float(s)] * 2) for i, s, t in zip(images, sigmas, taps)])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 3e-6), (torch.float64, 1e-11)])
def test_equals_torchvision(dtype, tolerance):
    images, sigmas = (
        torch.rand(6, 3, 19, 33, dtype=dtype),
        torch.tensor([0.1, 0.4, 0.99, 1.3, 1.7, 2.0]).double(),
    )
    expected = theirs(images, sigmas)
    changed = blur_(images, gaussian_kernels(sigmas))
    assert changed is images
    assert (changed - expected).abs().max() < tolerance


def test_kornia_gives_the_same():
    images, sigmas = torch.rand(4, 3, 15, 21), torch.rand(4) * 1.9 + 0.1
    kernels = gaussian_kernels(sigmas).float()
    assert (_convolve_(images.clone(), kernels) - blur_(images, gaussian_kernels(sigmas))).abs().max() < 2e-6


@pytest.mark.parametrize("size", [(1, 1), (1, 5), (4, 2), (6, 3), (7, 7)])
def test_kernels_wider_than_the_image(size):
    images, sigma = torch.rand(1, 2, *size, dtype=torch.float64), 2.0
    expected = images.clone()
    for axis, side in ((-2, size[0]), (-1, size[1])):
        matrix = torch.zeros(side, side, dtype=torch.float64)
        for here in range(side):
            for shift in range(-6, 7):
                there = here + shift
                while side > 1 and not 0 <= there < side:
                    there = -there if there < 0 else 2 * (side - 1) - there
                matrix[here, there if side > 1 else 0] += math.exp(-0.5 * (shift / sigma) ** 2)
        matrix /= matrix.sum(1, keepdim=True)
        expected = expected.transpose(axis, -1) @ matrix.T
        expected = expected.transpose(axis, -1)
    assert (blur_(images, gaussian_kernels(torch.tensor([sigma]))) - expected).abs().max() < 1e-12


def test_an_image_has_the_same_bits_beside_a_wider_blur():
    images, sigmas = torch.rand(5, 3, 20, 13), torch.tensor([0.2, 2.0, 0.7, 1.1, 1.9])
    whole = blur_(images.clone(), gaussian_kernels(sigmas))
    for n in range(5):
        assert torch.equal(blur_(images[n : n + 1].clone(), gaussian_kernels(sigmas[n : n + 1]))[0], whole[n])
