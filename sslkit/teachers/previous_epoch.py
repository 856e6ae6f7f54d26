"""Teacher = the student at the end of the epoch before."""

from torch import nn

from sslkit.clock import Clock
from sslkit.contracts import START, TeacherUpdate
from sslkit.teachers.matched_parameters import copy_parameters


class PreviousEpoch(TeacherUpdate):
    """teacher <- student after the last step of each epoch. DINO §5.2 and figure 6 (arXiv:2104.14294)."""

    def after_step(self, student: nn.Module, teacher: nn.Module, clock: Clock = START) -> None:
        if clock.is_epoch_end:
            copy_parameters(student, teacher)
