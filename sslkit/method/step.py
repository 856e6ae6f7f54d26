"""The training step: one algorithm, whatever the method. Read this file first."""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from sslkit.clock import Clock
from sslkit.contracts import START, Backbone, Loss
from sslkit.errors import RecipeError, UnknownName
from sslkit.method.executor import Executor
from sslkit.method.finite_guard import CHECKED, apply_if_finite, batch_statistics, nonfinite_flags, teacher_state
from sslkit.method.student_teacher import StudentTeacher
from sslkit.snapshot import TensorSnapshot
from sslkit.types import Projection, Targets, Views


@dataclass(frozen=True)
class StepOutput:
    """What a step leaves for the log: everything without gradient, images in batch order.

    ``flags`` are 1 where the loss, the teacher's answers or the gradients were not finite (`finite.CHECKED`): such a
    step moved nothing.
    """

    loss: Tensor
    student: Projection
    teacher: Projection
    targets: Targets
    flags: Tensor = field(default_factory=lambda: torch.zeros(len(CHECKED)))


ClipPer = Literal["parameter", "all"]
"""What is bound to the norm: each parameter by itself, or all together."""


@dataclass(frozen=True)
class Clip:
    """A bound on gradients.

    Args:
        norm: the largest l2 norm, above 0.
        per: ``parameter`` bounds each parameter tensor by itself (DINO's published code), ``all`` their joint norm.

    Raises:
        RecipeError: the norm is not above 0.
        UnknownName: another word for ``per``.
    """

    norm: float
    per: ClipPer = "parameter"

    def __post_init__(self) -> None:
        if not self.norm > 0:
            raise RecipeError(f"the norm of Clip is above 0, not {self.norm}")
        if self.per not in get_args(ClipPer):
            raise UnknownName("per of Clip", self.per, get_args(ClipPer))

    def __call__(self, parameters: Iterable[nn.Parameter]) -> None:
        """Scale the gradients in place by norm / (their norm + 1e-6) where that is below 1.

        Gradients whose norm is not finite become not a number, not 0: such a step must not count.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        norms = list(torch._foreach_norm(gradients))
        if self.per == "all":
            norms = [torch.stack(norms).norm()] * len(norms)
        # 0 * infinity is not a number.
        torch._foreach_mul_(gradients, [(self.norm / (norm + 1e-6)).clamp_max(1.0) + 0 * norm for norm in norms])


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
    """
    check_accumulation(accumulation, model.loss, views.batch_size)
    run = executor or Executor()
    student_views, teacher_views = model.assign(views)
    optimizer.zero_grad(set_to_none=True)
    kept = TensorSnapshot(lambda: batch_statistics(model))
    with torch.no_grad():
        model.student.head.before_step()

    run.set_batch_slice(0, views.batch_size, views.batch_size, views.groups[0].images.device)
    with run.autocast():
        shared, outputs = model.shares_forward(student_views, teacher_views), []
        if accumulation == 1 and shared:
            outputs = [run.student(model.student, student_views)]
            teacher = model.student.as_targets(outputs[0]).select(teacher_views.view_ids)
        else:
            teacher_input = _leading(student_views, teacher_views.view_ids) if shared else teacher_views
            teacher = model.teacher_forward(teacher_input).select(teacher_views.view_ids)
    targets = model.targets(teacher, clock)

    loss, student = _student_backward(model, student_views, targets, accumulation, run, outputs)

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

    flags = nonfinite_flags(loss, teacher, optimizer)
    apply_if_finite(flags, optimizer, move, lambda: teacher_state(model))
    kept.restore_if(flags)
    return StepOutput(loss, student, teacher, targets, flags)


def check_accumulation(accumulation: int, loss: Loss, num_images: int) -> None:
    """Refuse micro-batches without images, or of a loss whose gradient couples the images of a batch.

    Args:
        accumulation: micro-batches.
        loss: what the student minimises.
        num_images: images of a process in a step.

    Raises:
        RecipeError: naming the images or the loss.
    """
    if not 1 <= accumulation <= num_images:
        raise RecipeError(
            f"runtime.accumulation: the {num_images} images of a process cannot be cut into {accumulation} "
            f"micro-batches; take 1 to {num_images}"
        )
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
    outputs: list[Projection],
) -> tuple[Tensor, Projection]:
    """Run the student forward and backward, micro-batch by micro-batch; ``outputs`` holds a forward already run."""
    losses, students = [], []
    for start, stop, last in _micro_batches(views.batch_size, accumulation):
        with nullcontext() if last else run.accumulating():
            if not outputs:
                run.set_batch_slice(start, stop, views.batch_size, views.groups[0].images.device)
            with run.autocast():
                student = outputs[0] if outputs else run.student(model.student, views.narrow(start, stop))
            # The loss is a mean over images: weighted by their share, micro-batches add up to the whole batch.
            loss = model.loss(student, targets.narrow(start, stop)) * ((stop - start) / views.batch_size)
            with _buffers_kept(model.student.backbone):
                run.backward(loss)
        losses.append(loss.detach())
        students.append(student.detach())
    return torch.stack(losses).sum(), Projection.join(students)


@contextmanager
def _buffers_kept(backbone: Backbone) -> Iterator[None]:
    """Take back what a backward pass writes to buffers where it runs forward passes again."""
    kept = TensorSnapshot(backbone.buffers if backbone.recomputes else tuple)
    yield
    kept.restore()


def _leading(views: Views, view_ids: Sequence[int]) -> Views:
    """Return the first groups, as few as hold these views: a network's layers draw for them what they draw for all."""
    last = max(i for i, group in enumerate(views.groups) if {*group.view_ids} & {*view_ids})
    return replace(views, groups=views.groups[: last + 1])


def _micro_batches(batch_size: int, count: int) -> Iterator[tuple[int, int, bool]]:
    """Yield (start, stop, is last) of ``count`` nearly equal slices."""
    edges = [batch_size * i // count for i in range(count + 1)]
    for i in range(count):
        yield edges[i], edges[i + 1], i == count - 1
