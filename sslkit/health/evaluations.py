"""Evaluations of a run compared with its baselines, as far as the number of test images can tell."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from sslkit.health.symptoms import Row

NETWORKS = ("teacher", "student")
UNTRAINED, RAW_PIXELS = "untrained", "raw-pixels"

UNRECORDED = 2000
"""Test images that are taken for granted in rows of earlier versions, which do not say how many there were."""

STANDARD_ERRORS = 2.0
"""Standard errors within which two accuracies are called the same: 95 of 100 differences by chance are smaller."""

TELLING = 3.5
"""Points: with a larger sampling error, as of 1,000 images, a gain that is not seen is no sign of a failure."""


@dataclass(frozen=True)
class Comparison:
    """A metric, in percent, of the better network at the last evaluation and of a baseline.

    Args:
        metric: its name.
        network: the better one, teacher or student.
        score: what it has.
        baseline: what it is compared with.
        before: what that has.
        images: test images of both.
    """

    metric: str
    network: str
    score: float
    baseline: str
    before: float
    images: int

    @property
    def error(self) -> float:
        """The sampling error of the difference, in points."""
        return sampling_error(self.score, self.before, self.images)

    @property
    def is_below(self) -> bool:
        """Whether the network is below the baseline by more than the sampling error."""
        return self.score < self.before - self.error

    @property
    def is_gain(self) -> bool:
        """Whether it is above the baseline by more than the sampling error."""
        return self.score > self.before + self.error

    def __str__(self) -> str:
        return f"{self.metric} of the {self.network} is {self.score:.1f}, {self._whose} {self.before:.1f}"

    @property
    def _whose(self) -> str:
        return "that of the untrained network" if self.baseline == UNTRAINED else f"that of {self.baseline}"


def failed(results: Iterable[Row]) -> str:
    """Return the numbers of evaluations that show a failure; empty where there are none.

    They do where the better network is below the untrained one, or as good with so many test images that a gain would
    show (`TELLING`).
    """
    for found in _comparisons(results, UNTRAINED):
        if found.is_below or (not found.is_gain and found.error <= TELLING):
            return f"{found}; {_difference(found)}"
    return ""


def without_gain(results: Iterable[Row]) -> str:
    """Return the numbers of evaluations that do not show a gain over each baseline; empty where they do."""
    rows = list(results)
    for found in _comparisons(rows, UNTRAINED):
        if not found.is_gain:
            return f"{found}; {_difference(found)}{', and more of them would tell' * (found.error > TELLING)}"
    # The best variant of the raw pixels, which need no training at all.
    pixels = max(_comparisons(rows, RAW_PIXELS), key=lambda found: found.before, default=None)
    return str(pixels) if pixels is not None and pixels.score < pixels.before else ""


def sampling_error(one: float, other: float, images: int) -> float:
    """Return `STANDARD_ERRORS` of the difference of two percentages of as many test images, in points.

    Binomial, with a hit and a miss added to each, so that 0 and 100 % have an error too (Agresti and Caffo 2000,
    doi 10.1080/00031305.2000.10474560). Networks often miss the same images, and then differ by less than that.
    """
    shares = [(percent * images / 100 + 1) / (images + 2) for percent in (one, other)]
    return 100 * STANDARD_ERRORS * math.sqrt(sum(share * (1 - share) for share in shares) / (images + 2))


def _difference(found: Comparison) -> str:
    return f"{found.images:,} test images leave a sampling error of {found.error:.1f} points"


def _comparisons(results: Iterable[Row], baseline: str) -> Iterator[Comparison]:
    """Yield the comparisons of the last evaluation with a kind of baseline, by the first metric of each protocol."""
    # Rows that `sslkit evaluate` added have no step: nobody knows when they were measured.
    rows = [row for row in results if row.get("metrics") and row.get("network") and row["step"] is not None]
    last = _last_of_each_protocol([row for row in rows if row["network"] in NETWORKS])
    for row in rows:
        metric, before = next(iter(row["metrics"].items()))
        networks = [each for each in last.get(_measure(row), ()) if metric in each["metrics"]]
        if row["network"].startswith(baseline) and networks:
            # The better of both networks: with PreviousEpoch or BYOL one of them lags behind for a while.
            best = max(networks, key=lambda each: each["metrics"][metric])
            score = best["metrics"][metric]
            # What is not in percent is no accuracy, and has no error that is known.
            if min(score, before) >= 0 and max(score, before) <= 100:
                yield Comparison(metric, best["network"], score, row["network"], before, _images(row))


def _images(row: Row) -> int:
    found = row.get("test_images")
    return found if isinstance(found, int) and found > 0 else UNRECORDED


def _measure(row: Row) -> tuple[str, str]:
    """Return what has to be the same for two rows to be compared."""
    return str(row.get("protocol")), str(row.get("dataset"))


def _last_of_each_protocol(rows: Sequence[Row]) -> dict[tuple[str, str], list[Row]]:
    """Return the rows of the last step of each protocol and dataset."""
    last: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        of_step = last.get(_measure(row), [])
        last[_measure(row)] = [*of_step, row] if of_step and of_step[0]["step"] == row["step"] else [row]
    return last
