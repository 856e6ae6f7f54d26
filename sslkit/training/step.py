"""The training step: one algorithm, whatever the method. Read this file first."""

from collections.abc import Iterable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from sslkit.clock import Clock
from sslkit.contracts import START, Loss
from sslkit.errors import RecipeError
from sslkit.student_teacher import StudentTeacher
from sslkit.training.executor import Executor
from sslkit.training.finite import CHECKED, Kept, find_flaws, followers, statistics, unless_flawed
from sslkit.types import Projection, Targets, Views


@dataclass(frozen=True)
class StepOutput:
    """What a step leaves for the log: everything without gradient, images in batch order.

    ``flaws`` are 1 where the loss, the teacher's answers or the gradients were not finite (`finite.CHECKED`): such a
    step moved nothing.
    """

    loss: Tensor
    student: Projection
    teacher: Projection
    targets: Targets
    flaws: Tensor = field(default_factory=lambda: torch.zeros(len(CHECKED)))


@dataclass(frozen=True)
class Clip:
    """A bound on gradients.

    Args:
        norm: the largest l2 norm.
        per: ``parameter`` bounds each parameter tensor by itself (DINO's published code), ``all`` their joint norm.
    """

    norm: float
    per: Literal["parameter", "all"] = "parameter"

    def __call__(self, parameters: Iterable[nn.Parameter]) -> None:
        """Scale the gradients in place by norm / (their norm + 1e-6) where that is below 1."""
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        norms = list(torch._foreach_norm(gradients))
        if self.per == "all":
            norms = [torch.stack(norms).norm()] * len(norms)
        torch._foreach_mul_(gradients, [(self.norm / (norm + 1e-6)).clamp_max(1.0) for norm in norms])


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
        accumulation: micro-batches of the student's forward and backward; changes memory, not the result, but for
            batch statistics.
        executor: precision and processes; None is one process in the tensors' own precision.

    Raises:
        RecipeError: accumulation with a loss whose gradient couples the student's images.
        UnknownName: a frozen part that the student has not.
    """
    check_accumulation(accumulation, model.loss)
    run = executor or Executor()
    student_views, teacher_views = model.assign(views)
    optimizer.zero_grad(set_to_none=True)
    kept = Kept(lambda: statistics(model))
    with torch.no_grad():
        model.student.head.before_step()

    with run.autocast():
        if accumulation == 1 and model.shares_forward(student_views, teacher_views):
            answers = [run.student(model.student, student_views)]
            teacher = model.student.as_targets(answers[0]).select(teacher_views.view_ids)
        else:
            answers = []
            teacher = model.teach(teacher_views)
    targets = model.targets(teacher, clock)

    loss, student = _student_backward(model, student_views, targets, accumulation, run, answers)

    run.unscale(optimizer)
    if clip is not None:
        clip(model.student.parameters())
    for part in frozen:
        for parameter in model.student.part(part).parameters():
            parameter.grad = None

    def move() -> None:
        model.teacher_update.before_step(model.student, model.teacher, clock)
        run.step(optimizer)
        if model.collapse is not None:
            model.collapse.update(teacher, clock)
        model.teacher_update.after_step(model.student, model.teacher, clock)

    flaws = find_flaws(loss, teacher, optimizer)
    unless_flawed(flaws, optimizer, move, lambda: followers(model))
    kept.put_back_if(flaws)
    return StepOutput(loss, student, teacher, targets, flaws)


def check_accumulation(accumulation: int, loss: Loss) -> None:
    """Refuse micro-batches of a loss whose gradient couples the images of a batch.

    Raises:
        RecipeError: naming the loss.
    """
    if accumulation > 1 and loss.couples_batch:
        raise RecipeError(
            f"runtime.accumulation: {type(loss).__name__} compares the images of a batch with one another, so "
            "micro-batches would change its gradient. Add\n  --runtime.accumulation 1"
        )


def _student_backward(
    model: StudentTeacher,
    views: Views,
    targets: Targets,
    accumulation: int,
    run: Executor,
    answers: list[Projection],
) -> tuple[Tensor, Projection]:
    """Run the student forward and backward, micro-batch by micro-batch; ``answers`` holds a forward already run."""
    losses, students = [], []
    for start, stop, last in _micro_batches(views.batch_size, accumulation):
        with nullcontext() if last else run.accumulating():
            with run.autocast():
                student = answers[0] if answers else run.student(model.student, views.narrow(start, stop))
            # The loss is a mean over images: weighted by their share, micro-batches add up to the whole batch.
            loss = model.loss(student, targets.narrow(start, stop)) * ((stop - start) / views.batch_size)
            run.backward(loss)
        losses.append(loss.detach())
        students.append(student.detach())
    return torch.stack(losses).sum(), Projection.join(students)


def _micro_batches(batch_size: int, count: int) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, stop, is last) of ``count`` nearly equal slices."""
    edges = [batch_size * i // count for i in range(count + 1)]
    for i in range(count):
        if edges[i] < edges[i + 1]:
            yield edges[i], edges[i + 1], i == count - 1
