"""How a step is executed: precision, processes. It changes rounding and speed, never what is computed."""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sslkit.types import Projection, Views


class Executor:
    """One process in the precision of its tensors: what a loop of one's own needs."""

    def autocast(self) -> AbstractContextManager[Any]:
        """Enter the mixed precision of the forward passes."""
        return nullcontext()

    def start_step(self, seed: int, step: int) -> None:
        """Take in what layers that draw (drop path, dropout) may depend on: the run's seed and the step, from 0."""

    def set_batch_slice(self, start: int, stop: int, batch_size: int, device: torch.device) -> None:
        """Have the next forward's layers draw for the images start .. stop - 1 of this process's ``batch_size``."""

    def student(self, student: nn.Module, views: Views) -> Projection:
        """Run the student forward with gradient."""
        return student(views)

    def accumulating(self) -> AbstractContextManager[Any]:
        """Enter the micro-batches before the last, whose gradients are not yet exchanged between processes."""
        return nullcontext()

    def backward(self, loss: Tensor) -> None:
        """Add the gradients of a loss."""
        loss.backward()

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        """Undo the scaling of the gradients, where the precision scales them, and choose the next scale."""

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Move the parameters. It may be left out where a gradient is not finite, so nothing else belongs here."""
        optimizer.step()

    def scale(self) -> float | None:
        """What losses are multiplied by now, or None where the precision needs no scaling; a wait for the device."""
        return None

    def state(self) -> dict[str, Any]:
        """Return what the next step reads of it, as JSON takes it."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take back what ``state`` returned."""
