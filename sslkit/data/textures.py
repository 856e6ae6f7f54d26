"""Image source that draws textures, labelled by kind."""

from collections.abc import Sequence
from functools import cached_property
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sslkit.contracts import ImageSource
from sslkit.data.keys import fingerprint, row_keys
from sslkit.data.patterns import PATTERNS
from sslkit.errors import DataError, did_you_mean
from sslkit.hashing import GOLDEN, mix64
from sslkit.schedules import check_range
from sslkit.types import Sample

LAYOUTS = ("full", "object")
SPLITS = ("train", "validation", "test")
NUM_DRAWS = 24
"""Random numbers for each image."""

CHUNK = 512
"""Images drawn at a time, which bounds the memory of intermediate results."""


class Textures(ImageSource):
    """Almost grey textures of eight kinds: stripes, checker, dots, bricks, zigzag, grid, blobs, rings.

    Phase, orientation, frequency, contrast, tones and a slight tint are random, so single pixels hardly predict the
    label, and every crop of a picture shows it. Image i is of kind ``i % 8`` and does not depend on ``num_images``. The
    draws are the same on every machine; a pixel may differ by one step in 255 where cosines are rounded differently.

    Args:
        num_images: N.
        size: side in pixels, at least 8.
        split: ``train``, ``validation`` or ``test``, which have different images.
        seed: each seed gives a different data set.
        layout: with ``full`` the texture fills the picture, and the mask is all ones; with ``object`` it fills a round
            shape on a plain shaded background, and the mask is that shape.
        channels: 3, or 1 for grey.

    Raises:
        DataError: an argument is out of range.
    """

    in_memory = True
    class_names = tuple(pattern.__name__ for pattern in PATTERNS)

    def __init__(
        self,
        num_images: int = 4000,
        size: int = 32,
        split: str = "train",
        seed: int = 0,
        layout: Literal["full", "object"] = "full",
        channels: int = 3,
    ) -> None:
        if split not in SPLITS:
            raise DataError(f"Textures has no split {split!r}.{did_you_mean(split, SPLITS)}")
        if layout not in LAYOUTS:
            raise DataError(f"Textures has no layout {layout!r}.{did_you_mean(layout, LAYOUTS)}")
        check_range("Textures", "num_images", num_images, "[1, 10000000]")
        check_range("Textures", "size", size, "[8, 4096]")
        if channels not in (1, 3):
            raise DataError(f"the channels of Textures are 1 or 3, not {channels}")
        self.size, self.layout, self.channels = size, layout, channels
        self.stream = f"textures v1 {layout} {split} {seed}"
        self.name = f"textures {split}"
        self.keys = row_keys(self.stream, num_images)
        self.labels: Tensor = torch.arange(num_images) % len(PATTERNS)

    @cached_property
    def pictures(self) -> tuple[Tensor, Tensor]:
        """All images (N, C, H, W) and masks (N, H, W), uint8; drawn at the first access."""
        draws = torch.from_numpy(_uniform(self.stream, len(self)))
        parts = [self._draw(d, k) for d, k in zip(draws.split(CHUNK), self.labels.split(CHUNK), strict=True)]
        return torch.cat([image for image, _ in parts]), torch.cat([mask for _, mask in parts])

    def read(self, index: int) -> Sample:
        """Return image ``index``; do not change its tensors, which share memory with those of `pictures`."""
        images, masks = self.pictures
        return Sample(images[index], int(self.keys[index]), int(self.labels[index]), masks[index])

    def fingerprint(self) -> str:
        """Return a hash of the keys and of all arguments that change a pixel."""
        return fingerprint([self.keys, f"{self.stream} {self.size} {self.channels}"])

    def _draw(self, draws: Tensor, kinds: Tensor) -> tuple[Tensor, Tensor]:
        """Return images (n, C, H, W) and masks (n, H, W) of draws (n, NUM_DRAWS) in 0 .. 1."""
        # (n, 1, 1) each, to broadcast with pixels (n, H, W).
        angle, period, left, up, contrast, tone, tint, shape, ground = (
            part[..., None, None].unbind(1) for part in draws.split([1, 1, 1, 1, 1, 1, 3, 7, 8], 1)
        )
        x, y = self._pixels(left[0], up[0])
        mask = self._object(shape) if self.layout == "object" else torch.ones_like(x)
        covered = _covered(*_turned(x, y, angle[0] * 2 * torch.pi), (4.5 + 4.5 * period[0]) * self.size / 32, kinds)
        swing = (0.35 + 0.35 * contrast[0]) * (covered - 0.5)
        texture = _tinted(0.35 + 0.3 * tone[0] + swing, tint)
        image = texture * mask[:, None] + self._ground(ground) * (1 - mask[:, None])
        if self.channels == 1:
            image = image.mean(1, keepdim=True)
        return (255 * image.clamp(0, 1)).round().to(torch.uint8), (mask >= 0.5).to(torch.uint8)

    def _pixels(self, left: Tensor, up: Tensor) -> tuple[Tensor, Tensor]:
        """Return x and y of pixel centres, (n, H, W), from an origin at 0.2 .. 0.8 of the sides for draws in 0 .. 1."""
        at = torch.arange(self.size) + 0.5
        x, y = at - self.size * (0.2 + 0.6 * left), at[:, None] - self.size * (0.2 + 0.6 * up)
        return x.expand(-1, self.size, -1), y.expand(-1, -1, self.size)

    def _object(self, shape: tuple[Tensor, ...]) -> Tensor:
        """Return the share of each pixel, (n, H, W), covered by a disc whose radius varies in two and three waves."""
        left, up, radius, two, three, turn_two, turn_three = shape
        x, y = self._pixels((left + 0.5) / 2, (up + 0.5) / 2)
        angle = torch.atan2(y, x)
        waves = 0.2 * two * torch.cos(2 * angle + 2 * torch.pi * turn_two)
        waves = waves + 0.15 * three * torch.cos(3 * angle + 2 * torch.pi * turn_three)
        return ((0.28 + 0.1 * radius) * self.size * (1 + waves) - torch.hypot(x, y) + 0.5).clamp(0, 1)

    def _ground(self, ground: tuple[Tensor, ...]) -> Tensor:
        """Return plain backgrounds (n, 3, H, W), a little lighter to one side."""
        tone, slope, angle, left, up, *tint = ground
        across, _ = _turned(*self._pixels(left, up), angle * 2 * torch.pi)
        return _tinted(0.2 + 0.6 * tone + 0.3 * slope * across / self.size, tint)


def _covered(x: Tensor, y: Tensor, period: Tensor, kinds: Tensor) -> Tensor:
    """Return the pattern of each picture's kind, (n, H, W) in 0 .. 1; coordinates and ``period`` are in pixels."""
    covered = torch.empty_like(x)
    for kind, pattern in enumerate(PATTERNS):
        rows = torch.nonzero(kinds == kind)[:, 0]
        covered[rows] = pattern(x[rows] / period[rows], y[rows] / period[rows], 1 / period[rows])
    return covered


def _turned(x: Tensor, y: Tensor, angle: Tensor) -> tuple[Tensor, Tensor]:
    return x * angle.cos() + y * angle.sin(), y * angle.cos() - x * angle.sin()


def _tinted(tone: Tensor, tint: Sequence[Tensor]) -> Tensor:
    """Return grey (n, H, W) as almost grey colours (n, 3, H, W)."""
    return torch.stack([tone + 0.06 * (t - 0.5) for t in tint], 1)


def _uniform(stream: str, num_images: int) -> npt.NDArray[np.float32]:
    """Return (N, NUM_DRAWS) numbers, uniform in [0, 1); each is a hash of the stream, the image and its place."""
    rows = row_keys(f"{stream} draws", num_images).numpy().view(np.uint64)[:, None]
    words = mix64(rows + np.arange(1, NUM_DRAWS + 1, dtype=np.uint64) * GOLDEN)
    # The upper 24 bits: as many as float32 holds exactly.
    return (words >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)
