"""Steps by accelerate: any number of processes, any precision."""

import warnings
from collections.abc import Mapping
from contextlib import AbstractContextManager
from datetime import timedelta
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from torch import Tensor, nn

from sslkit.errors import RecipeError
from sslkit.method.drop_path import DropPathSeeding
from sslkit.method.executor import Executor
from sslkit.types import Projection, Views

LONGEST_WAIT = timedelta(hours=12)
"""That processes wait for one another: checkpoints and pictures are the main one's alone."""


def start_accelerator(device: torch.device, precision: str) -> Accelerator:
    """Return this process's accelerate, on its device and in the run's precision."""
    # It keeps one state a process; a second run in it may have another precision.
    AcceleratorState._reset_state()
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
    )


class AccelerateExecutor(Executor):
    """Any number of processes and any precision, by accelerate.

    Only the student is wrapped for gradient exchange, without buffer broadcast: each process keeps its own batch
    statistics, as the reference implementations do. Its drop paths do not depend on how the batch is shared out.

    Args:
        accelerator: made with the run's mixed precision.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator

    def prepare(self, student: nn.Module, teacher: nn.Module) -> None:
        """Wrap the student for the exchange of gradients.

        Raises:
            RecipeError: it is not on the device of this process.
        """
        self._draws = DropPathSeeding(student)
        self._wrapped = student
        if self.accelerator.num_processes > 1:
            _check_device(student, self.accelerator)
            device_ids = [self.accelerator.device] if self.accelerator.device.type == "cuda" else None
            with warnings.catch_warnings():
                # torch is renaming broadcast_buffers; the new name is unknown to the oldest torch that is supported.
                warnings.filterwarnings("ignore", ".*broadcast_buffers", FutureWarning)
                self._wrapped = nn.parallel.DistributedDataParallel(
                    student, device_ids=device_ids, broadcast_buffers=False
                )

    def autocast(self) -> AbstractContextManager[Any]:
        return self.accelerator.autocast()

    def start_step(self, seed: int, step: int) -> None:
        self._draws.start_step(seed, step)

    def set_batch_slice(self, start: int, stop: int, batch_size: int, device: torch.device) -> None:
        self._draws.set_batch_slice(start, stop, batch_size, device)

    def student(self, student: nn.Module, views: Views) -> Projection:
        return self._wrapped(views)

    def accumulating(self) -> AbstractContextManager[Any]:
        return self.accelerator.no_sync(self._wrapped)

    def backward(self, loss: Tensor) -> None:
        self.accelerator.backward(loss)

    def unscale(self, optimizer: torch.optim.Optimizer) -> None:
        self.accelerator.unscale_gradients(optimizer)
        # Not scaler.step: gradients that overflowed are skipped as all others that are not finite.
        if self.accelerator.scaler is not None:
            self.accelerator.scaler.update()

    def scale(self) -> float | None:
        return None if self.accelerator.scaler is None else self.accelerator.scaler.get_scale()

    def own_state(self) -> dict[str, Any]:
        return {} if self.accelerator.scaler is None else self.accelerator.scaler.state_dict()

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        if self.accelerator.scaler is not None and state:
            self.accelerator.scaler.load_state_dict(dict(state))


def _check_device(student: nn.Module, accelerator: Accelerator) -> None:
    device = next(student.parameters()).device
    # accelerate numbers CPUs too.
    if accelerator.device.type == "cuda" and device != accelerator.device:
        raise RecipeError(
            f"runtime.device: {device} is one device, but {accelerator.num_processes} processes train together, each "
            f"on its own. Add\n  --runtime.device {device.type}"
        )
