"""Teacher = the student one optimizer step ago."""

from collections.abc import Iterator

from torch import nn

from sslkit.clock import Clock
from sslkit.contracts import START, TeacherUpdate
from sslkit.recommendation import Recommendation, RunContext
from sslkit.teachers.matched_parameters import copy_parameters


class PreviousStep(TeacherUpdate):
    """teacher <- student as it is before the optimizer moves it. DINO §5.2 and figure 6 (arXiv:2104.14294).

    So during step t + 1 the teacher is the student of step t. The paper reports that this does not converge.
    """

    def before_step(self, student: nn.Module, teacher: nn.Module, clock: Clock = START) -> None:
        copy_parameters(student, teacher)

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        yield Recommendation(
            "a teacher one step behind did not converge with DINO's loss",
            "DINO figure 6",
            leads_to=("not learning", "dimensional collapse", "one-dimension collapse", "uniform collapse"),
            remedy={"method.teacher": "EMA"},
        )
