"""Make the views of one resolution."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from sslkit.types import ViewGroup
from sslkit.views.appearance import Appearance, Change, Selection, apply_, select
from sslkit.views.boxes import draw_boxes
from sslkit.views.checks import check_at_least, check_interval, check_probabilities, check_probability
from sslkit.views.draws import Stream
from sslkit.views.pixels import Normalize, ValueRange, to_unit
from sslkit.views.resample import Interpolation, crop_canvases, crop_picture

CACHED_VALUES = 1 << 18
"""Values in one chunk of images on the CPU. All operations run on a chunk before the next one, so that it stays in the
cache and the allocator reuses its temporaries; page faults make whole batches up to 5 times as slow."""


@dataclass(frozen=True)
class Resolution:
    """Crop and appearance of the views of one size.

    Args:
        name: ``global`` or ``local``, the prefix of the view maker's arguments, for error messages.
        view_ids: ids of the views.
        size: side of the views in pixels.
        scale: least and greatest share of the picture that a crop covers.
        flip: probability of a mirrored view.
        appearance: the operations after the crop; its probabilities are in the order of ``view_ids``.
        interpolation: of the resizing of crops.

    Raises:
        RecipeError: an argument is out of its range, or the number of probabilities differs from the number of views.
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
        places = zip(boxes[0].tolist(), flips[0].tolist())
        return torch.stack([crop_picture(picture, *one, self.size, self.interpolation) for one in places])

    def plan(self, draws: NDArray[np.float64], sides: Sequence[int] | None, on_cpu: bool) -> "ViewPlan":
        """Return the crops and changes of a batch, as tensors on the CPU.

        Args:
            draws: (B, V, S) uniforms.
            sides: height and width of the canvases, in pixels; None where the workers have cropped.
            on_cpu: whether the images are on the CPU too.
        """
        boxes = flips = None
        if sides is not None:
            boxes, flips = (torch.from_numpy(array) for array in self._place(draws, sides))
        changes = self.appearance.draw(draws)
        # Off the CPU the batch is one chunk, whose selections are made here so that all tensors move in one transfer.
        return ViewPlan(boxes, flips, changes, None if on_cpu else select(changes, 0, draws.shape[0] * draws.shape[1]))

    def crop_canvases(self, canvases: Tensor, plan: "ViewPlan") -> Tensor:
        """Return (V, B, C, size, size) crops.

        Args:
            canvases: (B, C, H, W), floating in [0, 1].
            plan: the plan for canvases of these sides, on their device.
        """
        assert plan.boxes is not None
        assert plan.flips is not None
        return crop_canvases(canvases, plan.boxes, plan.flips, self.size, self.interpolation)

    def finish(
        self, crops: Tensor, plan: "ViewPlan", normalize: Normalize, value_range: ValueRange | None
    ) -> ViewGroup:
        """Apply the appearance to crops and normalise them; the crops themselves stay as they are.

        Args:
            crops: (V, B, C, size, size), integers or floating in [0, 1].
            plan: the plan for this batch, on the device of the crops.
            normalize: the last operation.
            value_range: the values of black and of white in integer crops; None for those of the dtype.
        """
        flat = crops.flatten(0, 1)
        images = torch.empty(flat.shape, dtype=torch.promote_types(flat.dtype, torch.float32), device=flat.device)
        step = max(1, CACHED_VALUES // flat[0].numel()) if flat.device.type == "cpu" else len(flat)
        for start in range(0, len(flat), step):
            chunk = flat[start : start + step]
            selections = select(plan.changes, start, start + len(chunk)) if plan.selections is None else plan.selections
            # A copy in either case, since the operations work in place.
            chunk = chunk.to(images.dtype, copy=True) if chunk.is_floating_point() else to_unit(chunk, value_range)
            normalize(apply_(chunk, selections), out=images[start : start + step])
        return ViewGroup(images.unflatten(0, crops.shape[:2]), self.view_ids)

    def _place(self, draws: NDArray[np.float64], sides: Sequence[int]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        heights, widths = (np.full(len(draws), side, np.int64) for side in sides)
        return draw_boxes(draws, heights, widths, self.scale), draws[..., Stream.FLIP] < self.flip


class ViewPlan(NamedTuple):
    """The crops and changes of a batch at one resolution.

    Args:
        boxes: (B, V, 4) top, left, height, width, int64; None where the workers have cropped.
        flips: (B, V) whether to mirror, bool; None where the workers have cropped.
        changes: of the V * B crops, on the host.
        selections: the changes as selections from the whole batch; None on the CPU, which selects chunk by chunk.
    """

    boxes: Tensor | None
    flips: Tensor | None
    changes: list[Change]
    selections: list[Selection] | None = None
