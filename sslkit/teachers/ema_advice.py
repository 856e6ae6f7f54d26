"""Describe and recommend the momentum of an EMA teacher for a run."""

import math
from collections.abc import Iterator

from sslkit.clock import Clock
from sslkit.recommendation import ANY_FAILURE, Recommendation, RunContext
from sslkit.schedules import Schedule, rewritten, value_at

SHORTEST = 0.97
"""The least published momentum (BYOL over 40 epochs): half of the teacher is forgotten in 23 steps."""

NEVER_FOLLOWS = 0.99
"""The share of a teacher's first weights in its last, above which it is all but fixed."""

HALF_LIFE = 0.138
"""Epochs in which DINO (0.996, 1,251 steps an epoch) and MoCo (0.999, 5,004) both forget half at first."""


def half_life(momentum: float) -> float:
    """Return the steps in which an average forgets half: infinite for a momentum of 1, 1e-3 at most for 0."""
    return math.inf if momentum >= 1 else math.log(0.5) / math.log(max(momentum, 1e-300))


def describe_ema(momentum: float | Schedule, context: RunContext) -> Iterator[tuple[str, str]]:
    """Yield the half-life at the moment ``context.clock``."""
    yield "teacher half-life", context.span(half_life(value_at(momentum, context.clock)))


def recommend_momentum(momentum: float | Schedule, context: RunContext) -> Iterator[Recommendation]:
    """Yield a recommendation where the teacher cannot follow within the run, or was tuned for epochs of another length.

    Args:
        momentum: m in [0, 1], a number or a schedule.
        context: the run.
    """
    kept = _share_kept(momentum, context)
    if kept > 0.5:
        steps = max(half_life(SHORTEST), HALF_LIFE * context.clock.steps_per_epoch)
        steps = max(1.0, min(steps, context.clock.total_steps / 8))
        yield Recommendation(
            f"{kept:.0%} of the teacher at the end is its first weights: its half-life is longer than the run",
            "BYOL takes 0.97 for 40 epochs, 0.996 for 1000",
            _starting_with(0.5 ** (1 / steps), momentum, context.clock),
            leads_to=ANY_FAILURE if kept > NEVER_FOLLOWS else ("not learning",),
        )
    elif context.written_for is not None:
        yield from _of_other_epochs(momentum, context.written_for.clock, context.clock)


def _share_kept(momentum: float | Schedule, context: RunContext) -> float:
    """Return the share of the teacher's first weights in its last."""
    moments = context.moments()
    forgotten = sum(1 / half_life(value_at(momentum, moment)) for moment in moments) / len(moments)
    return 0.5 ** min(100.0, forgotten * context.clock.total_steps)


def _of_other_epochs(momentum: float | Schedule, there: Clock, here: Clock) -> Iterator[Recommendation]:
    """Yield that epochs have another length than where the momentum was written."""
    now, ratio = value_at(momentum, here), there.steps_per_epoch / here.steps_per_epoch
    if 0.8 <= ratio <= 1.25 or not SHORTEST < now < 1:
        return
    steps = half_life(now)
    yield Recommendation(
        f"momentum {now:g} was chosen for {there.steps_per_epoch:,} steps an epoch, a half-life of "
        f"{steps / there.steps_per_epoch:.2g} epochs; with {here.steps_per_epoch:,} steps it is "
        f"{steps / here.steps_per_epoch:.2g} epochs",
        "DINO's published code advises 0.9995 for batches of 256",
        _starting_with(max(SHORTEST, now**ratio), momentum, here),
        is_warning=False,
    )


def _starting_with(first: float, momentum: float | Schedule, clock: Clock) -> dict[str, object]:
    """Return the change to a momentum that begins with ``first``; other half-lives change in proportion, 1 stays."""
    now = value_at(momentum, clock)
    power = math.log(first) / math.log(now) if 0 < now < 1 else 1.0
    changed = rewritten(momentum, lambda m: _rounded(first if m == now else m**power if m < 1 else m))
    return {} if changed is None else {"momentum": changed}


def _rounded(momentum: float) -> float:
    """Keep two digits of 1 - m."""
    return 1 - float(f"{1 - momentum:.2g}")
