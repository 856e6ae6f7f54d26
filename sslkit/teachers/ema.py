"""Teacher = exponential moving average of the student."""

import math
from collections.abc import Iterator

import torch
from torch import nn

from sslkit.clock import Clock
from sslkit.contracts import START, TeacherUpdate
from sslkit.errors import RecipeError
from sslkit.recommendation import Recommendation, RunContext
from sslkit.schedules import Schedule, levels_of, rewritten, value_at
from sslkit.teachers.matched_parameters import matched_parameters

SHORTEST = 0.97
"""The least published momentum (BYOL over 40 epochs): half of the teacher is forgotten in 23 steps."""

HALF_LIFE = 0.138
"""Epochs in which DINO (0.996, 1,251 steps an epoch) and MoCo (0.999, 5,004) both forget half at first."""


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
        for key, level in levels_of("momentum", momentum).items():
            if not 0 <= level <= 1:
                raise RecipeError(f"the {key} of EMA lies in [0, 1], not {level}")
        self.momentum = momentum

    @torch.no_grad()
    def after_step(self, student: nn.Module, teacher: nn.Module, clock: Clock = START) -> None:
        teachers, students = matched_parameters(student, teacher)
        torch._foreach_lerp_(teachers, students, 1.0 - value_at(self.momentum, clock))

    def metrics(self, clock: Clock) -> dict[str, float]:
        return {"teacher_momentum": value_at(self.momentum, clock)}

    def describe(self, context: RunContext) -> Iterator[tuple[str, str]]:
        yield "teacher half-life", context.span(half_life(value_at(self.momentum, context.clock)))

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        kept = self._kept(context)
        if kept > 0.5:
            steps = max(half_life(SHORTEST), HALF_LIFE * context.clock.steps_per_epoch)
            steps = max(1.0, min(steps, context.clock.total_steps / 8))
            yield self._starting_with(
                0.5 ** (1 / steps),
                context.clock,
                f"{kept:.0%} of the teacher at the end is its first weights: its half-life is longer than the run",
                "BYOL takes 0.97 for 40 epochs, 0.996 for 1000",
            )
        elif context.written_for is not None:
            yield from self._of_other_epochs(context.written_for.clock, context.clock)

    def _kept(self, context: RunContext) -> float:
        """Return the share of the teacher's first weights in its last."""
        moments = context.moments()
        forgotten = sum(1 / half_life(value_at(self.momentum, moment)) for moment in moments) / len(moments)
        return 0.5 ** min(100.0, forgotten * context.clock.total_steps)

    def _of_other_epochs(self, there: Clock, here: Clock) -> Iterator[Recommendation]:
        """Yield that epochs have other lengths than where the momentum was written."""
        momentum, ratio = value_at(self.momentum, here), there.steps_per_epoch / here.steps_per_epoch
        if 0.8 <= ratio <= 1.25 or not SHORTEST < momentum < 1:
            return
        steps = half_life(momentum)
        yield self._starting_with(
            max(SHORTEST, momentum**ratio),
            here,
            f"momentum {momentum:g} was chosen for {there.steps_per_epoch:,} steps an epoch, a half-life of "
            f"{steps / there.steps_per_epoch:.2g} epochs; with {here.steps_per_epoch:,} steps it is "
            f"{steps / here.steps_per_epoch:.2g} epochs",
            "DINO's published code advises 0.9995 for batches of 256",
            is_warning=False,
        )

    def _starting_with(
        self, first: float, clock: Clock, reason: str, source: str, is_warning: bool = True
    ) -> Recommendation:
        """Return a recommendation to begin with ``first``; other half-lives change in proportion, 1 stays."""
        now = value_at(self.momentum, clock)
        power = math.log(first) / math.log(now) if 0 < now < 1 else 1.0
        momentum = rewritten(self.momentum, lambda m: _rounded(first if m == now else m**power if m < 1 else m))
        return Recommendation(reason, source, {} if momentum is None else {"momentum": momentum}, is_warning)


def half_life(momentum: float) -> float:
    """Return the steps in which an average forgets half: infinite for a momentum of 1, 1e-3 at most for 0."""
    return math.inf if momentum >= 1 else math.log(0.5) / math.log(max(momentum, 1e-300))


def _rounded(momentum: float) -> float:
    """Keep two digits of 1 - m."""
    return 1 - float(f"{1 - momentum:.2g}")
