"""The student's forward and backward over a batch, micro-batch by micro-batch."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from itertools import pairwise

import torch
from torch import Tensor

from sslkit.checks.outputs import check_loss
from sslkit.contracts import Backbone, Loss
from sslkit.errors import RecipeError
from sslkit.method.executor import Executor
from sslkit.method.student_teacher import StudentTeacher
from sslkit.snapshot import TensorSnapshot
from sslkit.types import Projection, Targets, Views


class StudentPass:
    """One forward and backward of the student over its views, which may give the teacher's outputs too.

    Where the teacher is the student itself and sees no other views, one forward serves both, unless micro-batches
    cut it up: targets are made of the whole batch.

    Args:
        model: the method.
        views: those that the student sees, (S, B, C, H, W).
        accumulation: micro-batches, from 1 to B.
        executor: precision and processes.

    Raises:
        RecipeError: as `check_accumulation`.
    """

    def __init__(self, model: StudentTeacher, views: Views, accumulation: int, executor: Executor) -> None:
        check_accumulation(accumulation, model.loss, views.batch_size)
        self.model, self.views, self.accumulation, self.executor = model, views, accumulation, executor
        self._forward: Projection | None = None

    def teacher_outputs(self, views: Views) -> Projection:
        """Return the teacher's outputs (T, B, .) for its views (T, B, C, H, W), without gradient."""
        model, shared = self.model, self.model.shares_forward(self.views, views)
        self._set_batch_slice(0, self.views.batch_size)
        with self.executor.autocast():
            if shared and self.accumulation == 1:
                self._forward = self.executor.student(model.student, self.views)
                outputs = model.student.as_targets(self._forward)
            else:
                outputs = model.teacher_forward(_leading(self.views, views.view_ids) if shared else views)
        return outputs.select(views.view_ids)

    def backward(self, targets: Targets) -> tuple[Tensor, Projection]:
        """Add the gradients of the loss against targets of the whole batch.

        Returns:
            The loss, a scalar, and the student's outputs (S, B, .), both without gradient.
        """
        losses, students = [], []
        for start, stop in _micro_batches(self.views.batch_size, self.accumulation):
            with nullcontext() if stop == self.views.batch_size else self.executor.accumulating():
                student = self._student(start, stop)
                # The loss is a mean over images: weighted by their share, micro-batches add up to the whole batch.
                share = (stop - start) / self.views.batch_size
                value = self.model.loss(student, targets.narrow(start, stop))
                check_loss(self.model.loss, value)
                loss = value * share
                with _buffers_restored(self.model.student.backbone):
                    self.executor.backward(loss)
            losses.append(loss.detach())
            students.append(student.detach())
        return torch.stack(losses).sum(), Projection.join(students)

    def _student(self, start: int, stop: int) -> Projection:
        if self._forward is not None:
            return self._forward
        self._set_batch_slice(start, stop)
        with self.executor.autocast():
            return self.executor.student(self.model.student, self.views.narrow(start, stop))

    def _set_batch_slice(self, start: int, stop: int) -> None:
        self.executor.set_batch_slice(start, stop, self.views.batch_size, self.views.groups[0].images.device)


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


@contextmanager
def _buffers_restored(backbone: Backbone) -> Iterator[None]:
    """Take back what a backward pass writes to buffers where it runs forward passes again."""
    snapshot = TensorSnapshot(backbone.buffers if backbone.recomputes else tuple)
    yield
    snapshot.restore()


def _leading(views: Views, view_ids: Sequence[int]) -> Views:
    """Return the first groups, as few as hold these views: a network's layers draw for them what they draw for all."""
    last = max(i for i, group in enumerate(views.groups) if {*group.view_ids} & {*view_ids})
    return replace(views, groups=views.groups[: last + 1])


def _micro_batches(batch_size: int, count: int) -> Iterator[tuple[int, int]]:
    """Yield the start and the stop of ``count`` nearly equal slices."""
    edges = [batch_size * i // count for i in range(count + 1)]
    yield from pairwise(edges)
