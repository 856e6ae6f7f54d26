"""Draw crop boxes as torchvision's RandomResizedCrop does."""

import numpy as np
from numpy.typing import NDArray

from sslkit.views.draws import ATTEMPTS, Stream, between

RATIO = (3 / 4, 4 / 3)
"""Least and greatest aspect ratio, width / height, of a crop before it is resized to a square."""


def draw_boxes(
    draws: NDArray[np.float64],
    heights: NDArray[np.int64],
    widths: NDArray[np.int64],
    scale: tuple[float, float],
) -> NDArray[np.int64]:
    """Return (B, V, 4) boxes (top, left, height, width) in pixels: torchvision's RandomResizedCrop, vectorised.

    The share of the picture's area is uniform in ``scale``, the aspect ratio log-uniform in 3/4 .. 4/3. Of ten attempts
    the first that fits is placed uniformly; where none fits, the largest central box of an allowed ratio is taken.

    Args:
        draws: (B, V, S) uniforms.
        heights: (B,) heights of the pictures in pixels.
        widths: (B,) widths of the pictures in pixels.
        scale: least and greatest share of the picture's area.
    """
    height, width = heights[:, None], widths[:, None]
    area = between(draws[..., Stream.CROP_AREA :][..., :ATTEMPTS], *scale) * (height * width)[..., None]
    ratio = np.exp(between(draws[..., Stream.CROP_RATIO :][..., :ATTEMPTS], *np.log(RATIO)))
    # rint rounds halves to even, as Python's round in torchvision does.
    tall, wide = np.rint(np.sqrt(area / ratio)), np.rint(np.sqrt(area * ratio))
    fits = (tall > 0) & (tall <= height[..., None]) & (wide > 0) & (wide <= width[..., None])
    # The first attempt that fits; 0 where none does, which the fallback replaces below.
    first = fits.argmax(-1)[..., None]
    tall, wide = np.take_along_axis(tall, first, -1)[..., 0], np.take_along_axis(wide, first, -1)[..., 0]
    top = np.floor(draws[..., Stream.CROP_TOP] * (height - tall + 1))
    left = np.floor(draws[..., Stream.CROP_LEFT] * (width - wide + 1))
    drawn = np.stack([top, left, tall, wide], -1).astype(np.int64)
    return np.where(fits.any(-1)[..., None], drawn, _central_boxes(heights, widths)[:, None])


def _central_boxes(heights: NDArray[np.int64], widths: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (B, 4) boxes: the picture, cut at both ends where its aspect ratio is not allowed."""
    tall = np.minimum(heights, np.rint(widths / RATIO[0])).astype(np.int64)
    wide = np.minimum(widths, np.rint(heights * RATIO[1])).astype(np.int64)
    return np.stack([(heights - tall) // 2, (widths - wide) // 2, tall, wide], -1)
