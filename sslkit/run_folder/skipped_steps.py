"""Record the steps that moved nothing because a number was not finite."""

import json
import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslkit.distributed import gather_over_processes, rank
from sslkit.method.finite_guard import CHECKED
from sslkit.run_folder.metrics_log import StepRows, lines_until

logger = logging.getLogger("sslkit.training")

Row = dict[str, Any]

HINTS = {
    "teacher's answers": "The teacher's weights are finite: look at the images first, then try",
    "loss": "Try optimization.clip_grad_norm, a longer warm-up,",
    "gradients": "The loss is finite: try",
}
"""What to do, by the first of these that is not finite; a lower learning rate and fp32 are next."""


class SkippedSteps:
    """The skipped steps of a run: what was not finite, and the keys and files of the images, in skipped.jsonl.

    A step of fp16 whose gradients alone overflowed is not counted: so the scaler finds its scale. It counts once the
    scale is below 1, where an overflow has another cause.

    Args:
        path: skipped.jsonl.
        after: the step that the run is resumed from; rows of later steps are dropped.
        writes: whether this process is the one that writes.
        scale: returns what losses are multiplied by, or None.
        places: returns the files or rows of the images with these keys; None leaves them out.
    """

    def __init__(
        self,
        path: Path,
        after: int = 0,
        writes: bool = True,
        scale: Callable[[], float | None] = lambda: None,
        places: Callable[[Sequence[int]], Sequence[str]] | None = None,
    ) -> None:
        self.count = self.roll_backs = 0
        self.streak: list[Row] = []
        """Rows of the skipped steps since the last finite step or roll-back."""
        self.rolled_back: Row | None = None
        """The row of the last roll-back: after which step, and to which."""
        for row in map(json.loads, lines_until(path, after)):
            if self.streak and self.streak[-1]["step"] + 1 < row["step"]:
                self.streak = []
            self._count(row)
        if self.streak and self.streak[-1]["step"] < after:
            self.streak = []
        self.rows, self.scale, self.places = StepRows(path, after, writes), scale, places
        self._unread: list[tuple[int, Tensor, Tensor]] = []

    def note(self, step: int, keys: Tensor, flags: Tensor) -> None:
        """Keep the flags of a step on the device, to be read later: reading them waits for the device.

        Args:
            step: counted from 1.
            keys: (B,) of this process's images.
            flags: the step's.
        """
        self._unread.append((step, keys, flags))

    def read(self) -> None:
        """Read the flags of the steps since the last call; waits for the device and for all processes."""
        unread, self._unread = self._unread, []
        flags = torch.stack([flags for _, _, flags in unread]).tolist() if unread else []
        for (step, keys, on), found in zip(unread, flags, strict=True):
            names = [name for name, is_nonfinite in zip(CHECKED, found, strict=True) if is_nonfinite]
            if not names:
                self.streak = []
            elif names != ["gradients"] or (self.scale() or 0) < 1:
                everybodys = _everybodys(keys, on.device)
                images = {} if self.places is None else {"images": self.places(everybodys)}
                self._add({"step": step, "not_finite": names, "keys": everybodys, **images})

    def roll_back(self, step: int, to: int) -> None:
        """Record that after ``step`` the networks are set to those after step ``to``."""
        row = {"step": step, "rolled_back_to": to}
        self._count(row)
        self.rows.write(row)

    def __str__(self) -> str:
        first, last = self.streak[0]["step"], self.streak[-1]["step"]
        seen = {name for row in self.streak for name in row["not_finite"]}
        return f"the last {len(self.streak)} steps, {first} to {last}, moved nothing; {_listed(seen)}"

    def hint(self, precision: str) -> str:
        """Return what to try against the streak of a run in this precision."""
        seen = {name for row in self.streak for name in row["not_finite"]}
        start = next(hint for name, hint in HINTS.items() if name in seen)
        return f"{start} a lower optimization.lr{'' if precision == 'fp32' else ' or precision fp32'}."

    def _add(self, row: Row) -> None:
        self._count(row)
        self.rows.write(row)
        if rank() == 0:
            logger.warning("step %d moved nothing; %s", row["step"], _listed(row["not_finite"]))

    def _count(self, row: Row) -> None:
        if "not_finite" in row:
            self.count += 1
            self.streak.append(row)
        else:
            self.roll_backs += 1
            self.streak, self.rolled_back = [], row


def _everybodys(keys: Tensor, device: torch.device) -> list[int]:
    """Return the keys of a batch over all processes, exchanged on the device that they talk over."""
    everyone: list[int] = gather_over_processes(keys.to(device)).tolist()
    return everyone


def _listed(names: Collection[str]) -> str:
    return "not finite: " + ", ".join(name for name in CHECKED if name in names)
