"""Colour operations on a batch, with one amount for each image, by torchvision's definitions.

Every function changes its images in place and returns them. Images are (N, C, H, W), floating, in [0, 1], and stay
there; amounts are (N,), on the device of the images. kornia's own jitter is not used: it computes every operation on
the whole batch, and its hue alone takes 15 times as long as the one here (measured on one CPU thread).
"""

import torch
from torch import Tensor

_GRAY = (0.2989, 0.587, 0.114)
"""torchvision's weights of red, green and blue; kornia's differ by 1e-4."""


def brightness_(images: Tensor, factors: Tensor) -> Tensor:
    """Multiply by a factor >= 0. Any number of channels."""
    return images.mul_(_per_image(factors, images)).clamp_(0, 1)


def contrast_(images: Tensor, factors: Tensor) -> Tensor:
    """Scale the distance to the image's mean gray by a factor >= 0; other than RGB, to the mean of all channels."""
    # Rows first: in one reduction the order of the sum, and so the last bits of a mean, depend on the batch size.
    means = images.mean(-1).mean(-1)
    means = _gray(means) if images.shape[1] == 3 else means.mean(1, keepdim=True)
    return _blend_(images, means[..., None, None], factors)


def saturation_(images: Tensor, factors: Tensor) -> Tensor:
    """Scale the distance to the pixel's gray by a factor >= 0. RGB only."""
    return _blend_(images, _gray(images), factors)


def hue_(images: Tensor, turns: Tensor) -> Tensor:
    """Rotate the hue by -0.5 .. 0.5 of a turn. RGB only.

    With hue in sixths of a turn, h = +-(max - min + g + b - r - min) / (max - min), the sign that of g - b, and a
    channel whose own hue is n is min + (max - min) * clamp(2 - |h - n|, 0, 1). Only sums, minima and maxima: a
    comparison and a selection cost ten times as much, as no vector instruction does them on random pixels.
    """
    r, g, b = images.unbind(1)
    low = torch.minimum(torch.minimum(r, g), b)
    chroma = torch.maximum(torch.maximum(r, g), b).sub_(low)
    # Gray has chroma 0 and no hue: the clamp avoids 0 / 0, and every hue gives gray back.
    scratch = chroma.clamp_min(1e-12)
    hue = (g + b).sub_(r).sub_(low).add_(chroma).div_(scratch).copysign_(torch.sub(g, b, out=scratch))
    hue.add_(_per_image(turns * 6 + 6, images)[:, 0])
    hue.sub_(torch.mul(hue, 1 / 6, out=scratch).floor_(), alpha=6)
    distance = torch.sub(hue, 3, out=scratch).abs_().clamp_(1, 2)
    torch.addcmul(low - chroma, distance, chroma, out=r)
    high = low.add_(chroma, alpha=2)
    for channel, own_hue in ((g, 2), (b, 4)):
        distance = torch.sub(hue, own_hue, out=scratch).abs_().clamp_(1, 2)
        torch.addcmul(high, distance, chroma, value=-1, out=channel)
    return images


def grayscale_(images: Tensor, _: Tensor | None = None) -> Tensor:
    """Replace all three channels by their gray. RGB only."""
    return images.copy_(_gray(images))


def solarize_(images: Tensor, _: Tensor | None = None) -> Tensor:
    """Invert values of at least 0.5: the smaller of a value and its inverse. Any number of channels."""
    return torch.minimum(images, 1 - images, out=images)


def _gray(images: Tensor) -> Tensor:
    r, g, b = images.unbind(1)
    return r.mul(_GRAY[0]).add_(g, alpha=_GRAY[1]).add_(b, alpha=_GRAY[2]).unsqueeze(1)


def _blend_(images: Tensor, others: Tensor, factors: Tensor) -> Tensor:
    factor = _per_image(factors, images)
    return images.mul_(factor).add_(others.mul_(1 - factor)).clamp_(0, 1)


def _per_image(amounts: Tensor, images: Tensor) -> Tensor:
    return amounts.to(images.dtype).view(-1, 1, 1, 1)
