"""Gaussian blur of a batch, with one width for each image."""

import torch
import torch.nn.functional as F
from torch import Tensor


def blur_(images: Tensor, kernels: Tensor) -> Tensor:
    """Blur images in place and return them; equal to torchvision's blur with a kernel of 2 ceil(3 sigma) + 1 taps.

    Borders are padded by reflection, repeatedly where the kernel is wider than the image. On the CPU the blur is a sum
    of shifted images, which is 1.3 to 10 times as fast as kornia's convolution there and gives an image the same bits
    in every batch; on other devices kornia convolves.

    Args:
        images: (N, C, H, W), floating.
        kernels: (N, R + 1), half a kernel for each image, from `gaussian_kernels`, on the device of the images.
    """
    return (_sum_of_shifts_ if images.device.type == "cpu" else _convolve_)(images, kernels.to(images.dtype))


def gaussian_kernels(sigmas: Tensor) -> Tensor:
    """Return the halves (N, R + 1), float64, of symmetric kernels: the weights at the distances 0 .. R in pixels.

    An image's radius is ceil(3 sigma), R that of the widest kernel; weights beyond an image's own radius are 0.

    Args:
        sigmas: (N,) standard deviations in pixels, above 0, on the CPU.
    """
    sigma = sigmas.double()[:, None]
    radius = (3 * sigma).ceil()
    distance = torch.arange(int(radius.max()) + 1)
    weights = torch.exp(-0.5 * (distance / sigma) ** 2) * (distance <= radius)
    # The whole kernel sums to 1; it has every weight twice except the one at distance 0.
    return weights / (2 * weights.sum(1, keepdim=True) - weights[:, :1])


def _sum_of_shifts_(images: Tensor, kernels: Tensor) -> Tensor:
    # Summed from the middle outwards, so that the zeros that pad a kernel to the batch's widest change no bit.
    radius = kernels.shape[1] - 1
    weights = kernels.T[:, :, None, None, None]
    for axis in (-1, -2):
        side = images.shape[axis]
        padded = _mirror(images, radius, axis)
        torch.mul(padded.narrow(axis, radius, side), weights[0], out=images)
        for distance in range(1, radius + 1):
            before, after = (padded.narrow(axis, radius + shift, side) for shift in (-distance, distance))
            images.addcmul_(before + after, weights[distance])
    return images


def _convolve_(images: Tensor, kernels: Tensor) -> Tensor:
    from kornia.filters import filter2d_separable  # takes seconds to import; not needed on the CPU

    taps = torch.cat([kernels[:, 1:].flip(1), kernels], 1)
    padded = _mirror(_mirror(images, kernels.shape[1] - 1, -1), kernels.shape[1] - 1, -2)
    return images.copy_(filter2d_separable(padded, taps, taps, padding="valid"))


def _mirror(images: Tensor, radius: int, axis: int) -> Tensor:
    """Pad an axis by ``radius`` pixels at both ends, by reflection about the border pixels."""
    while radius:
        side = images.shape[axis]
        # F.pad reflects at most side - 1 pixels at a time, and none where the side is 1.
        step = min(radius, side - 1) if side > 1 else radius
        padding = (step, step, 0, 0) if axis == -1 else (0, 0, step, step)
        images = F.pad(images, padding, "reflect" if side > 1 else "replicate")
        radius -= step
    return images
