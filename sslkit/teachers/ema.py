"""Teacher = exponential moving average of the student."""

from collections.abc import Iterator

import torch
from torch import nn

from sslkit.clock import Clock
from sslkit.contracts import START, TeacherUpdate
from sslkit.recommendation import Recommendation, RunContext
from sslkit.schedules import Schedule, check_range, value_at
from sslkit.teachers.ema_advice import describe_ema, recommend_momentum
from sslkit.teachers.matched_parameters import matched_parameters


class EMA(TeacherUpdate):
    """teacher <- m * teacher + (1 - m) * student, after each optimizer step.

    MoCo §3.2 (arXiv:1911.05722), BYOL §3.1 (arXiv:2006.07733), DINO §3.1 (arXiv:2104.14294). MoCo's published
    order, the average before the key forward, is the same as this one a step earlier.

    Args:
        momentum: m in [0, 1], a number or a schedule; DINO and BYOL go from 0.996 to 1 along a cosine, MoCo
            keeps 0.999.

    Raises:
        RecipeError: a number, or a level of a schedule, outside [0, 1].
    """

    def __init__(self, momentum: float | Schedule = 0.996) -> None:
        check_range("EMA", "momentum", momentum, "[0, 1]")
        self.momentum = momentum

    @torch.no_grad()
    def after_step(self, student: nn.Module, teacher: nn.Module, clock: Clock = START) -> None:
        teachers, students = matched_parameters(student, teacher)
        torch._foreach_lerp_(teachers, students, 1.0 - value_at(self.momentum, clock))

    def metrics(self, clock: Clock) -> dict[str, float]:
        return {"teacher_momentum": value_at(self.momentum, clock)}

    def describe(self, context: RunContext) -> Iterator[tuple[str, str]]:
        return describe_ema(self.momentum, context)

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        return recommend_momentum(self.momentum, context)
