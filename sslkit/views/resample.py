"""Antialiased crops of one picture in a worker, and of a batch of canvases on the device.

kornia's RandomResizedCrop is not used: it has no antialiasing.
"""

from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional

Interpolation = Literal["bicubic", "bilinear"]

MATMUL_SIDE = 64
"""Side in pixels up to which matrix products are faster on the CPU than torchvision's loop; above, 5-8x slower."""


def crop_picture(
    picture: Tensor, box: Sequence[int], flip: bool, size: int, interpolation: Interpolation = "bicubic"
) -> Tensor:
    """Return (C, size, size): the box, resized with antialiasing and mirrored if ``flip``.

    Args:
        picture: (C, H, W), uint8 or floating in [0, 1]; the dtype stays, overshoot is clamped.
        box: top, left, height, width, in pixels.
        flip: whether to mirror left and right.
        size: side of the result in pixels.
        interpolation: of the resizing.
    """
    top, left, height, width = box
    mode = InterpolationMode(interpolation)
    crop = functional.resized_crop(picture, top, left, height, width, [size, size], mode)
    # Bicubic weights are negative in places: crops overshoot to about -0.06 .. 1.06.
    crop = crop.clamp_(0, 1) if crop.is_floating_point() else crop
    return crop.flip(-1) if flip else crop


def fit_square(picture: Tensor, resize: int, size: int) -> Tensor:
    """Return (C, size, size): the shorter side resized to ``resize``, bicubic and antialiased, and the center cropped.

    A picture whose shorter side has this length already is not resampled.
    """
    picture = functional.resize(picture, [resize], InterpolationMode.BICUBIC)
    picture = picture.clamp(0, 1) if picture.is_floating_point() else picture
    return functional.center_crop(picture, [size, size])


def crop_canvases(
    canvases: Tensor,
    boxes: Tensor,
    flips: Tensor,
    size: int,
    interpolation: Interpolation = "bicubic",
) -> Tensor:
    """Return (V, B, C, size, size): the result of `crop_picture` for each view of each canvas, in one batch.

    Args:
        canvases: (B, C, H, W), floating in [0, 1].
        boxes: (B, V, 4) top, left, height, width, int64, on the device of the canvases.
        flips: (B, V) whether to mirror, bool, on the same device.
        size: side of the result in pixels.
        interpolation: of the resizing.
    """
    if canvases.device.type == "cpu" and max(canvases.shape[-2:]) > MATMUL_SIDE:
        places = [zip(canvases, boxes[:, v].tolist(), flips[:, v].tolist()) for v in range(boxes.shape[1])]
        return torch.stack([torch.stack([crop_picture(*one, size, interpolation) for one in view]) for view in places])
    return _crop_by_matmul(canvases, boxes, flips, size, interpolation)


def _crop_by_matmul(canvases: Tensor, boxes: Tensor, flips: Tensor, size: int, interpolation: Interpolation) -> Tensor:
    """Resample rows, then columns, with one weight matrix for each axis, view and image."""
    num_images, channels, height, width = canvases.shape
    box = boxes.to(canvases.dtype)
    rows = resample_weights(box[..., 0], box[..., 2], height, size, interpolation)
    columns = resample_weights(box[..., 1], box[..., 3], width, size, interpolation)
    # Reversed weights mirror the crop without another pass over its pixels.
    columns = torch.where(flips[..., None, None], columns.flip(-2), columns)
    # (B, V * size, H) @ (B, H, C * W): the views share one pass over the canvas, which is never repeated.
    crops = rows.flatten(1, 2) @ canvases.transpose(1, 2).flatten(2)
    crops = crops.view(num_images, -1, size * channels, width) @ columns.transpose(-1, -2)
    crops = crops.view(num_images, -1, size, channels, size).permute(1, 0, 3, 2, 4)
    return crops.contiguous().clamp_(0, 1)


def resample_weights(
    start: Tensor, length: Tensor, side: int, size: int, interpolation: Interpolation = "bicubic"
) -> Tensor:
    """Return (..., size, side): row i holds the weight of each of ``side`` pixels in pixel i of the crop.

    The Keys cubic with a = -0.5, or the triangle for bilinear, widened by length / size where that is above 1, cut off
    at the crop's border and normalised: torchvision's and PIL's antialiased interpolation.

    Args:
        start: (...) the crop's first pixel, floating.
        length: (...) the crop's length in pixels, floating.
        side: length of the canvas along this axis, in pixels.
        size: length of the result, in pixels.
        interpolation: the kernel.
    """
    pixels = torch.arange(side, dtype=start.dtype, device=start.device) + 0.5
    step = (length / size)[..., None, None]
    centers = torch.arange(size, dtype=start.dtype, device=start.device)[:, None] * step + (0.5 * step)
    offset = pixels - start[..., None, None]
    # Pixels outside the crop have no weight: torchvision and PIL cut before they resize.
    inside = (offset > 0) & (offset < length[..., None, None])
    weights = KERNELS[interpolation]((offset[..., :] - centers).div_(step.clamp(min=1)).abs_()).mul_(inside)
    return weights.div_(weights.sum(-1, keepdim=True))


def _cubic(x: Tensor) -> Tensor:
    """Evaluate the Keys cubic at x >= 0. Both pieces are 0 at x = 1, the outer also at 2: clamping saves a branch."""
    near, far = x.clamp(max=1), x.clamp_(1, 2)
    near = near.square() * (1.5 * near - 2.5) + 1
    return near.add_(((2.5 - 0.5 * far) * far - 4) * far + 2)


def _triangle(x: Tensor) -> Tensor:
    """Evaluate the triangle at x >= 0."""
    return x.clamp_(max=1).neg_().add_(1)


KERNELS: dict[Interpolation, Callable[[Tensor], Tensor]] = {"bicubic": _cubic, "bilinear": _triangle}
