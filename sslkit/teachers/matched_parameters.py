"""Match the teacher's parameters with the student's by name."""

import torch
from torch import Tensor, nn


def matched_parameters(student: nn.Module, teacher: nn.Module) -> tuple[list[Tensor], list[Tensor]]:
    """Return the teacher's parameters and the student's namesakes, as (teachers, students).

    The student may have more (a predictor); buffers are left out, because averaging integer counters and batch
    statistics would corrupt them.

    Raises:
        ValueError: a teacher parameter has no namesake in the student.
    """
    of_student = dict(student.named_parameters())
    of_teacher = dict(teacher.named_parameters())
    if orphans := [name for name in of_teacher if name not in of_student]:
        raise ValueError(f"teacher parameters without a student parameter of that name: {', '.join(orphans)}")
    return list(of_teacher.values()), [of_student[name] for name in of_teacher]


@torch.no_grad()
def copy_parameters(student: nn.Module, teacher: nn.Module) -> None:
    """Set the teacher's parameters to the student's."""
    teachers, students = matched_parameters(student, teacher)
    torch._foreach_copy_(teachers, students)
