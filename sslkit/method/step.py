"""The training step: one algorithm, whatever the method. Read this file first."""

from collections.abc import Iterable
from dataclasses import dataclass, field

import torch
from torch import Tensor

from sslkit.clock import Clock
from sslkit.contracts import START
from sslkit.method.executor import Executor
from sslkit.method.finite_guard import CHECKED, FiniteGuard
from sslkit.method.gradients import Clip, clip_and_freeze
from sslkit.method.student_pass import StudentPass
from sslkit.method.student_teacher import StudentTeacher
from sslkit.types import Projection, Targets, Views


@dataclass(frozen=True)
class StepOutput:
    """What a step leaves for the log: everything without gradient, images in batch order.

    ``flags`` are 1 where the loss, the teacher's outputs or the gradients were not finite (`finite_guard.CHECKED`);
    such a step moved nothing.
    """

    loss: Tensor
    student: Projection
    teacher: Projection
    targets: Targets
    flags: Tensor = field(default_factory=lambda: torch.zeros(len(CHECKED)))


def train_step(
    model: StudentTeacher,
    views: Views,
    optimizer: torch.optim.Optimizer,
    clock: Clock = START,
    *,
    clip: Clip | None = None,
    frozen: Iterable[str] = (),
    accumulation: int = 1,
    executor: Executor | None = None,
) -> StepOutput:
    """Take one optimizer step on one batch, or none where a number of it is not finite.

    Args:
        model: the method.
        views: this process's whole batch.
        optimizer: over the student's parameters; learning rate and weight decay are set by the caller.
        clock: the step about to be taken. Left out, every step is the first of a run, which suits parts that ask for no
            time: no schedule, no `PreviousEpoch`, no queue that starts later.
        clip: the bound on gradients, or None.
        frozen: parts of the student (``Branch.parts``) that do not move: their gradients become None, so that
            neither moments nor weight decay touch them.
        accumulation: micro-batches of the student's forward and backward, from 1 to the images; changes memory, not
            the result, but for batch statistics.
        executor: precision and processes; None is one process in the tensors' own precision.

    Raises:
        RecipeError: more micro-batches than images, or some with a loss whose gradient couples the student's images.
        UnknownName: a frozen part that the student has not.
        ComponentError: the views are a tensor, or a part returns something else than its contract says.
    """
    run = executor or Executor()
    student_views, teacher_views = model.assign(views)  # (S, B, C, H, W), (T, B, C, H, W)
    student_pass = StudentPass(model, student_views, accumulation, run)
    optimizer.zero_grad(set_to_none=True)
    guard = FiniteGuard(model, optimizer, run)
    with torch.no_grad():
        model.student.head.before_step()

    teacher = student_pass.teacher_outputs(teacher_views)  # (T, B, .), no gradient
    targets = model.targets(teacher, clock)  # (T, B, K) or (T, B, D)
    loss, student = student_pass.backward(targets)  # (), (S, B, .)
    model.first_step.gradients(model.student.parts())

    run.unscale(optimizer)
    clip_and_freeze(model.student, clip, frozen, run)

    @torch.no_grad()
    def update() -> None:
        model.teacher_update.before_step(model.student, model.teacher, clock)
        run.step(optimizer)
        if model.collapse is not None:
            model.collapse.update(teacher, clock)
        model.teacher_update.after_step(model.student, model.teacher, clock)

    with model.first_step.update(model.student, model.teacher, model.teacher_update, model.collapse):
        flags = guard.apply(update, loss, teacher)  # nothing moves where a number is not finite
    return StepOutput(loss, student, teacher, targets, flags)
