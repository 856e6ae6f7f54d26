"""Teacher = the student itself, without gradient."""

from typing import ClassVar

from sslkit.contracts import TeacherUpdate


class Copy(TeacherUpdate):
    """The teacher's outputs are the student's own, detached.

    SwAV §3 (arXiv:2006.09882); "student copy" in DINO figure 6 (arXiv:2104.14294). No second network exists and,
    where the student sees the teacher's views anyway, no second forward is run.
    """

    shares_weights: ClassVar[bool] = True
