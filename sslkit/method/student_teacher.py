"""Student and teacher, with the components that connect them."""

from collections.abc import Sequence

import torch
from torch import nn

from sslkit.checks.outputs import check_targets
from sslkit.clock import Clock
from sslkit.contracts import START, CollapseOperator, Loss, TeacherUpdate
from sslkit.errors import ComponentError, RecipeError
from sslkit.method.branch import Branch
from sslkit.method.first_step import FirstStep
from sslkit.method.fit import check_contracts, check_fit
from sslkit.types import Projection, Targets, ViewChoice, Views, matching_pairs, resolve_view_ids


class StudentTeacher(nn.Module):
    """A method: student, teacher, and the components that connect them.

    Args:
        student: the branch that learns.
        teacher_update: how the teacher follows.
        collapse: makes targets of the teacher's outputs; None takes the teacher's embeddings as they are.
        loss: what the student minimises.
        teacher: another branch to start the teacher from (BYOL initialises it independently); None copies the
            student. Ignored by a rule that shares the student's weights.
        student_views: the views the student sees.
        teacher_views: the views the teacher sees.

    Raises:
        RecipeError: operator, loss, head and views do not fit; the message says what would.
        ComponentError: one of them does not keep to its contract.
    """

    def __init__(
        self,
        student: Branch,
        *,
        teacher_update: TeacherUpdate,
        collapse: CollapseOperator | None,
        loss: Loss,
        teacher: Branch | None = None,
        student_views: ViewChoice = "all",
        teacher_views: ViewChoice = "globals",
    ) -> None:
        super().__init__()
        check_contracts(teacher=teacher_update, collapse=collapse, loss=loss)
        check_fit(student.head, collapse, loss)
        self.student = student
        # Shared by reference: parameters and buffers exist once, also in checkpoints.
        self.teacher = student if teacher_update.shares_weights else (teacher or student).as_teacher()
        self.teacher_update = teacher_update
        self.collapse = collapse
        self.loss = loss
        self.student_views = student_views
        self.teacher_views = teacher_views
        self.first_step = FirstStep()

    def assign(self, views: Views) -> tuple[Views, Views]:
        """Return the views that the student sees and those that the teacher sees.

        Raises:
            ComponentError: the views are crops without view ids.
            RecipeError: a view is asked for that is not made, or no two different views would be compared.
        """
        if not isinstance(views, Views):
            raise ComponentError(
                f"views are a sslkit.Views, not a {type(views).__name__}: Views.of makes them of crops (B, C, H, W), "
                "MultiCrop of images"
            )
        student, teacher = compared_views(self.student_views, self.teacher_views, views.view_ids, views.num_globals)
        return views.select(student), views.select(teacher)

    def shares_forward(self, student_views: Views, teacher_views: Views) -> bool:
        """Whether the student's own forward already holds the teacher's outputs."""
        return self.teacher is self.student and {*teacher_views.view_ids} <= {*student_views.view_ids}

    @torch.no_grad()
    def teacher_forward(self, teacher_views: Views) -> Projection:
        """Return the teacher's outputs, without gradient."""
        return self.teacher(teacher_views, predict=False)

    @torch.no_grad()
    def targets(self, teacher: Projection, clock: Clock = START) -> Targets:
        """Return what the student must predict, given the teacher's outputs for this process's whole batch."""
        if self.collapse is None:
            return Targets(teacher.embedding, "embedding", teacher.view_ids)
        with self.first_step.targets(self.collapse, teacher):
            targets = self.collapse(teacher, clock)
        return check_targets(self.collapse, targets, teacher)


def compared_views(
    student_choice: ViewChoice, teacher_choice: ViewChoice, view_ids: Sequence[int], num_globals: int
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the ids of the views that the student sees, and of those that the teacher sees.

    Args:
        student_choice: the student's.
        teacher_choice: the teacher's.
        view_ids: the views that are made.
        num_globals: how many of them are global; their ids come first.

    Raises:
        RecipeError: a view that is not made or named twice, or no two different views to compare.
    """
    student, teacher = (resolve_view_ids(choice, view_ids, num_globals) for choice in (student_choice, teacher_choice))
    for key, ids in (("student_views", student), ("teacher_views", teacher)):
        if missing := sorted({*ids} - {*view_ids}):
            raise RecipeError(
                f"method.{key}: there is no view {missing[0]}; the ids are {min(view_ids)} to {max(view_ids)}, "
                f"which leaves out views {missing}"
            )
        if len({*ids}) < len(ids):
            raise RecipeError(f"method.{key}: {list(ids)} names a view twice, which is seen once; leave one out")
    matching_pairs(teacher, student)
    return student, teacher
