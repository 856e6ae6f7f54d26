"""How a step is executed: precision, processes, sharding. It changes rounding and speed, never what is computed."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from sslkit.method.student_teacher import StudentTeacher
from sslkit.types import Projection, Views


class Executor:
    """One process in the precision of its tensors; subclasses add mixed precision, processes or sharding.

    Nothing else in the package knows how networks are wrapped, so that a subclass that shards them (FSDP2) changes
    `prepare`, `gradient_norms`, `state_dict` and `load` alone.
    """

    def prepare(self, student: nn.Module, teacher: nn.Module) -> None:
        """Wrap or shard the networks.

        Called once, on their device, before the optimizer is built, since sharding replaces parameters.

        Args:
            student: the branch that learns.
            teacher: the branch that follows it; may be the student.
        """

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

    def gradient_norms(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """Return the l2 norm, a scalar tensor, of each gradient as a whole, on its device."""
        return list(torch._foreach_norm(list(gradients))) if gradients else []

    def step(self, optimizer: torch.optim.Optimizer) -> None:
        """Move the parameters. It may be left out where a gradient is not finite, so nothing else belongs here."""
        optimizer.step()

    def scale(self) -> float | None:
        """What losses are multiplied by now, or None where the precision needs no scaling; a wait for the device."""
        return None

    def state_dict(self, model: StudentTeacher, optimizer: torch.optim.Optimizer) -> dict[str, Any]:
        """Return all that the next step reads, each tensor as a whole; every process calls it.

        Returns:
            ``model`` and ``optimizer``: their state dicts, in which a teacher that is the student stands once;
            ``parameters``: the names of the optimizer's parameters, in its order; ``executor``: of `own_state`.
        """
        shared = model.teacher is model.student
        names = {parameter: name for name, parameter in model.named_parameters()}
        return {
            "model": {
                name: tensor
                for name, tensor in model.state_dict().items()
                if not (shared and name.startswith("teacher."))
            },
            "optimizer": optimizer.state_dict(),
            "parameters": [names.get(p, "") for group in optimizer.param_groups for p in group["params"]],
            "executor": self.own_state(),
        }

    def load(self, model: StudentTeacher, optimizer: torch.optim.Optimizer, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        # Not strict: the state of a teacher that is the student stands once.
        model.load_state_dict(state["model"], strict=False)
        optimizer.load_state_dict(state["optimizer"])
        _match_strides(optimizer)
        self.load_own_state(state["executor"])

    def own_state(self) -> dict[str, Any]:
        """Return what the next step reads of the executor itself, as plain data for JSON."""
        return {}

    def load_own_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `own_state` returned, or nothing where that was empty."""


def _match_strides(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the strides of their parameters (channels last).

    A file holds them contiguous, but torch's fused optimizers walk parameter and moments as flat memory.
    """
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)
