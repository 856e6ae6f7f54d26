"""The views of one resolution, from picture to backbone."""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sslkit.types import ViewGroup
from sslkit.views.appearance import Appearance, apply_
from sslkit.views.boxes import draw_boxes
from sslkit.views.checks import check_at_least, check_interval, check_probabilities, check_probability
from sslkit.views.draws import Stream
from sslkit.views.pixels import Normalize, ValueRange, to_unit
from sslkit.views.resample import Interpolation, crop_canvases, crop_picture

CACHED_VALUES = 1 << 18
"""Values worked on at a time on the CPU: all operations on a few images before the next few, which stay in the cache
and whose temporaries the allocator reuses; whole batches cost up to 5 times as much in page faults."""


@dataclass(frozen=True)
class Resolution:
    """How the views of one size are cropped and what they look like.

    Args:
        name: ``global`` or ``local``, as it begins the names of a view maker's arguments.
        view_ids: the views.
        size: their side in pixels.
        scale: least and greatest share of the picture that a crop covers.
        flip: probability of a mirrored view.
        appearance: the colours; its probabilities are in the order of ``view_ids``.
        interpolation: what resizes crops.

    Raises:
        RecipeError: an argument is out of its range, or there is not one probability a view.
    """

    name: str
    view_ids: tuple[int, ...]
    size: int
    scale: tuple[float, float]
    flip: float
    appearance: Appearance
    interpolation: Interpolation = "bicubic"

    def __post_init__(self) -> None:
        check_at_least(f"{self.name}_size", self.size, 1)
        check_interval(f"{self.name}_scale", self.scale, 0, 1)
        check_probability("flip", self.flip)
        for operation in ("blur", "solarize"):
            probabilities = getattr(self.appearance, operation).ravel().tolist()
            check_probabilities(f"{self.name}_{operation}", probabilities, len(self.view_ids))

    def crop_picture(self, picture: Tensor, draws: NDArray[np.float64]) -> Tensor:
        """Return (V, C, size, size) crops of one picture.

        Args:
            picture: (C, H, W), uint8 or floating in [0, 1].
            draws: (1, V, S) uniforms.
        """
        boxes, flips = self._place(draws, picture.shape[-2:])
        return torch.stack(
            [crop_picture(picture, *one, self.size, self.interpolation) for one in zip(boxes[0], flips[0])]
        )

    def crop_canvases(self, canvases: Tensor, draws: NDArray[np.float64]) -> Tensor:
        """Return (V, B, C, size, size) crops.

        Args:
            canvases: (B, C, H, W), floating in [0, 1].
            draws: (B, V, S) uniforms.
        """
        boxes, flips = self._place(draws, canvases.shape[-2:])
        return crop_canvases(canvases, boxes, flips, self.size, self.interpolation)

    def finish(
        self, crops: Tensor, draws: NDArray[np.float64], normalize: Normalize, value_range: ValueRange | None
    ) -> ViewGroup:
        """Return the crops with their appearance, normalised.

        Args:
            crops: (V, B, C, size, size), integers or floating in [0, 1].
            draws: (B, V, S) uniforms.
            normalize: the last operation.
            value_range: of integer crops.
        """
        flat = crops.flatten(0, 1)
        images = torch.empty(flat.shape, dtype=torch.promote_types(flat.dtype, torch.float32), device=flat.device)
        changes = self.appearance.draw(draws)
        step = max(1, CACHED_VALUES // flat[0].numel()) if flat.device.type == "cpu" else len(flat)
        for start in range(0, len(flat), step):
            part = flat[start : start + step]
            part = part.to(images.dtype, copy=True) if part.is_floating_point() else to_unit(part, value_range)
            normalize(apply_(part, changes, start), out=images[start : start + step])
        return ViewGroup(images.unflatten(0, crops.shape[:2]), self.view_ids)

    def _place(self, draws: NDArray[np.float64], sides: torch.Size) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        heights, widths = (np.full(len(draws), side, np.int64) for side in sides)
        return draw_boxes(draws, heights, widths, self.scale), draws[..., Stream.FLIP] < self.flip
