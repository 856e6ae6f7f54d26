"""Diagnose a run from its logged metrics and evaluations alone, during training and afterwards alike."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from sslkit.health.symptoms import LATE_SYMPTOMS, SYMPTOMS, Row
from sslkit.recommendation import FailureMode, Recommendation

EARLIEST_STEPS, EARLIEST_SHARE = 100, 0.02
"""Steps, and share of the run, before which nothing is diagnosed: the outputs of new networks hardly differ."""

LASTING_STEPS, LASTING_ROWS = 50, 3
"""Steps back, and rows at least, over which every number is averaged: one batch may show a symptom by chance."""

TRIED_STEPS, TRIED_SHARE = 200, 0.1
"""Steps, and share of the run, after which it should have learned something."""

NOISE = 2.0
"""Points of k-NN accuracy that are no gain over the untrained network: two standard errors over 2,000 images."""


@dataclass(frozen=True)
class Verdict:
    """The diagnosis of a run at one step.

    Args:
        name: a failure mode, ``healthy``, or ``too early to say``.
        reason: the numbers that show it; empty where there are none.
        step: at which it was first found.
    """

    name: FailureMode | Literal["healthy", "too early to say"]
    reason: str
    step: int

    @property
    def is_failure(self) -> bool:
        """Whether it is a failure mode."""
        return self.name in get_args(FailureMode)

    def __str__(self) -> str:
        return f"{self.name} ({self.reason})" if self.reason else self.name


def judge(rows: Sequence[Row], results: Iterable[Row], total_steps: int) -> Verdict:
    """Return how a run stands at its last row.

    Args:
        rows: of metrics.jsonl up to now, at least one; only the last few are read.
        results: of results.json up to now; k-NN is compared with the untrained network's, where both are there.
        total_steps: of the run.
    """
    now = int(rows[-1]["step"])
    if now < max(EARLIEST_STEPS, EARLIEST_SHARE * total_steps):
        return Verdict("too early to say", "", now)
    # Single batches vary; what a mean over many rows shows, lasts.
    recent = _average(_lasting(rows))
    for failure_mode, symptom in SYMPTOMS.items():
        if reason := symptom(recent):
            return Verdict(failure_mode, reason, now)
    if now >= max(TRIED_STEPS, TRIED_SHARE * total_steps):
        reasons = [*(symptom(recent) for symptom in LATE_SYMPTOMS), _no_better_than_untrained(results)]
        if any(reasons):
            return Verdict("not learning", next(filter(None, reasons)), now)
    return Verdict("healthy", "", now)


def causes(verdict: Verdict, recommendations: Iterable[Recommendation]) -> list[Recommendation]:
    """Return what in a recipe is known to lead to a verdict."""
    return [recommendation for recommendation in recommendations if verdict.name in recommendation.leads_to]


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


def _no_better_than_untrained(results: Iterable[Row]) -> str:
    """Compare the better network at the last evaluation with the untrained one, by the first metric that both have."""
    rows = [row for row in results if row["metrics"]]
    untrained = {row["protocol"]: row["metrics"] for row in rows if row["network"] == "untrained"}
    trained = [row for row in rows if row["network"] in ("teacher", "student") and row["protocol"] in untrained]
    if not trained:
        return ""
    last = [row for row in trained if row["step"] == trained[-1]["step"] and row["protocol"] == trained[-1]["protocol"]]
    metric, before = next(iter(untrained[last[0]["protocol"]].items()))
    # The better of both networks: with PreviousEpoch or BYOL one of them lags behind for a while.
    best = max(last, key=lambda row: row["metrics"].get(metric, -math.inf))
    score = best["metrics"].get(metric, math.inf)
    if score > before + NOISE:
        return ""
    return f"{metric} of the {best['network']} is {score:.1f}, that of the untrained network {before:.1f}"
