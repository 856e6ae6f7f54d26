"""A step with a number that is not finite leaves everything as it was, decided on the device without a wait for it."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor

from sslkit.distributed import max_over_processes
from sslkit.method.executor import Executor
from sslkit.method.student_teacher import StudentTeacher
from sslkit.snapshot import TensorSnapshot, is_read_at_once
from sslkit.types import Projection

CHECKED = ("loss", "teacher's answers", "gradients")
"""What `nonfinite_flags` checks, in this order, as skipped.jsonl names it."""


class FiniteGuard:
    """Applies the update of a step only where its numbers are finite; the others leave everything as it was.

    Args:
        model: before its forward passes, which write batch statistics.
        optimizer: over the student.
        executor: of the step, which knows the norms of gradients; None is one process.
    """

    def __init__(
        self, model: StudentTeacher, optimizer: torch.optim.Optimizer, executor: Executor | None = None
    ) -> None:
        self.model, self.optimizer, self.executor = model, optimizer, executor
        self._statistics = TensorSnapshot(lambda: batch_statistics(model))

    def apply(self, update: Callable[[], None], loss: Tensor, teacher: Projection) -> Tensor:
        """Run ``update`` and return `nonfinite_flags`; where one of them is 1, nothing has changed.

        Args:
            update: takes the optimizer's step and updates what follows it.
            loss: the step's, ().
            teacher: its outputs.
        """
        flags = nonfinite_flags(loss, teacher, self.optimizer, self.executor)
        apply_if_finite(flags, self.optimizer, update, lambda: teacher_state(self.model))
        self._statistics.restore_if(flags)
        return flags


def nonfinite_flags(
    loss: Tensor, teacher: Projection, optimizer: torch.optim.Optimizer, executor: Executor | None = None
) -> Tensor:
    """Return (3,) float32 on the device, 1 where one of `CHECKED` holds a number that is not finite in any process.

    Numbers whose squares overflow count as well: as gradients, Adam would make them its second moment.

    Args:
        loss: the step's.
        teacher: its outputs, of which collapse operators make their state; one-hot targets would hide such a number.
        optimizer: over the parameters whose gradients are checked.
        executor: knows the norms of gradients; None is one process.
    """
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    outputs = [teacher.embedding] if teacher.logits is None else [teacher.embedding, teacher.logits]
    norms = [*torch._foreach_norm([loss, *outputs]), *(executor or Executor()).gradient_norms(gradients)]
    finite = torch.stack(norms).isfinite()
    parts = finite.split([1, len(outputs), len(gradients)])
    return max_over_processes(1 - torch.stack([part.all() for part in parts]).float())


def nonfinite_state(
    model: StudentTeacher, optimizer: torch.optim.Optimizer, executor: Executor | None = None
) -> list[str]:
    """Return the names of weights, buffers and moments that are not finite, in any process; waits for the device.

    The gradients of a step may be finite and its update not: a learning rate of 1e39, an eps of 0. This finds it before
    a checkpoint is written.

    Args:
        model: student, teacher, collapse operator.
        optimizer: over the student.
        executor: knows the norms of tensors; None is one process.
    """
    names: dict[Tensor, str] = {parameter: name for name, parameter in model.named_parameters()}
    state: dict[str, Any] = dict(model.state_dict())
    for parameter, moments in optimizer.state.items():
        state |= {f"{key} of {names.get(parameter, 'a parameter')}": value for key, value in moments.items()}
    floating = {name: value for name, value in state.items() if isinstance(value, Tensor) and value.is_floating_point()}
    tensors = [tensor for tensor in floating.values() if tensor.numel()]
    finite = torch.stack((executor or Executor()).gradient_norms(tensors)).isfinite()
    # Buffers are each process's own, but all have to stop together.
    flags = max_over_processes((~finite).float()).tolist()
    return [name for name, flag in zip((n for n, t in floating.items() if t.numel()), flags) if flag]


def apply_if_finite(
    flags: Tensor,
    optimizer: torch.optim.Optimizer,
    update: Callable[[], None],
    written: Callable[[], Iterable[Tensor]],
) -> None:
    """Run an update that counts only where no flag is 1.

    A flag that would have to be waited for stays on the device: the optimizer skips its step by torch's ``found_inf``
    (torch's fused optimizers know it, and those that recipes name), and what else was written is put back. An optimizer
    that does not know it costs the wait, as it does in torch's own GradScaler.

    Args:
        flags: of `nonfinite_flags`.
        optimizer: takes its step inside ``update``.
        update: writes.
        written: gives the tensors that ``update`` writes besides the optimizer's.
    """
    skipped = flags.amax()
    if is_read_at_once(flags) or not getattr(optimizer, "_step_supports_amp_scaling", False):
        if not skipped:
            update()
        return
    kept = TensorSnapshot(written)
    optimizer.found_inf = skipped  # type: ignore[attr-defined]
    try:
        update()
    finally:
        # A scaler that takes the step has removed its own.
        vars(optimizer).pop("found_inf", None)
    kept.restore_if(flags)


def batch_statistics(model: StudentTeacher) -> Iterator[Tensor]:
    """Yield what forward passes write: the buffers of both branches."""
    for branch in dict.fromkeys((model.student, model.teacher)):
        yield from branch.buffers()


def teacher_state(model: StudentTeacher) -> Iterator[Tensor]:
    """Yield what a step writes besides the student: the teacher's parameters, the collapse operator's state."""
    if model.teacher is not model.student:
        yield from model.teacher.parameters()
    if model.collapse is not None:
        yield from model.collapse.buffers()
