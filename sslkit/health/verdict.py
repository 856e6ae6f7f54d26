"""Diagnose a run from its logged metrics and evaluations alone, during training and afterwards alike."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sslkit.health.evaluations import failed, without_gain
from sslkit.health.symptoms import LATE_SYMPTOMS, SYMPTOMS, Row, diverged, stands_still
from sslkit.recommendation import FailureMode, Recommendation

EARLIEST_STEPS, EARLIEST_SHARE = 100, 0.02
"""Steps, and share of the run, before which nothing is diagnosed: the outputs of new networks hardly differ."""

LASTING_STEPS, LASTING_ROWS = 50, 3
"""Steps back, and rows at least, over which every number is averaged: one batch may show a symptom by chance."""

TRIED_STEPS, TRIED_SHARE = 200, 0.1
"""Steps, and share of the run, after which it should have learned something."""

NO_GAIN: Literal["no gain shown"] = "no gain shown"
"""The verdict on a run that may have learned, but whose evaluations do not show it."""

NO_CAUSE = (
    "Nothing in the recipe or the images is known to lead to that; a lower optimization.lr or a longer warm-up is the "
    "first to try"
)


@dataclass(frozen=True)
class Verdict:
    """The diagnosis of a run at one step.

    Args:
        name: a failure mode; ``no gain shown`` where evaluations do not tell the networks from what needs no training;
            ``healthy``; or ``too early to say``.
        reason: the numbers that show it; empty where there are none.
        step: at which it was first found.
    """

    name: FailureMode | Literal["no gain shown", "healthy", "too early to say"]
    reason: str
    step: int

    @property
    def is_failure(self) -> bool:
        """Whether it is a failure mode."""
        return self.name in get_args(FailureMode)

    @property
    def asks_for_causes(self) -> bool:
        """Whether there is something to explain: a failure, or no gain."""
        return self.is_failure or self.name == NO_GAIN

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})" if self.reason else self.name


def judge(
    rows: Sequence[Row],
    results: Iterable[Row],
    total_steps: int,
    of_images: Callable[[], Sequence[Recommendation]] = tuple,
) -> Verdict:
    """Return how a run stands at its last row.

    Args:
        rows: of metrics.jsonl up to now, at least one; only the last few are read.
        results: of results.json up to now; k-NN is compared with the untrained network's, where both are there.
        total_steps: of the run.
        of_images: returns what is wrong with the training images; called once there is something to diagnose.
    """
    now = int(rows[-1]["step"])
    if reason := diverged(rows):
        return Verdict("divergence", reason, now)
    is_early = now < max(EARLIEST_STEPS, EARLIEST_SHARE * total_steps)
    if reason := stands_still(rows):
        # A warm-up by epochs may begin with one of them at 0. A run that is over stood still, however short it was.
        is_known = now >= total_steps or not (is_early or rows[-1].get("epoch", math.inf) <= 1)
        return Verdict("not learning", reason, now) if is_known else Verdict("too early to say", "", now)
    if is_early:
        return Verdict("too early to say", "", now)
    # Single batches vary; what a mean over many rows shows, lasts.
    recent = _average(_lasting(rows))
    for failure_mode, symptom in SYMPTOMS.items():
        if reason := symptom(recent):
            return Verdict(failure_mode, reason, now)
    if wrong := of_images():
        return Verdict("not learning", wrong[0].reason, now)
    evaluated = list(results)
    has_tried = now >= max(TRIED_STEPS, TRIED_SHARE * total_steps)
    reasons = [*(symptom(recent) for symptom in LATE_SYMPTOMS), failed(evaluated)] if has_tried else []
    if reason := next(filter(None, reasons), ""):
        return Verdict("not learning", reason, now)
    # A run that is over has no more to show, but one so short need not have failed.
    reason = without_gain(evaluated) if has_tried or now >= total_steps else ""
    return Verdict(NO_GAIN if reason else "healthy", reason, now)


def causes(verdict: Verdict, recommendations: Iterable[Recommendation]) -> list[Recommendation]:
    """Return what in a recipe, or in its images, is known to lead to a verdict."""
    mode = "not learning" if verdict.name == NO_GAIN else verdict.name
    return [recommendation for recommendation in recommendations if mode in recommendation.leads_to]


def _lasting(rows: Sequence[Row]) -> Sequence[Row]:
    """Return the last rows, those of `LASTING_STEPS` or at least `LASTING_ROWS`."""
    since = rows[-1]["step"] - LASTING_STEPS
    fewest = rows[-LASTING_ROWS:]
    first = next((i for i in range(len(rows) - len(fewest), 0, -1) if rows[i - 1]["step"] < since), 0)
    return rows[first:]


def _average(rows: Sequence[Row]) -> Row:
    """Return the mean of each number over rows; one that a row lacks, or has as null, is not counted."""
    values = {name: [row[name] for row in rows if row.get(name) is not None] for name in rows[-1]}
    return {name: math.fsum(numbers) / len(numbers) for name, numbers in values.items() if numbers}
