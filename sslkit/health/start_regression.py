"""A run that starts from good weights should not lose what they could do."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from sslkit.contracts import Callback, TrainingRun
from sslkit.run_folder.results import INIT_FROM

logger = logging.getLogger("sslkit.training")

NOISE = 1.0
"""Percent points that are no fall: the standard error of an accuracy over 2000 images."""

REMEDY = (
    "To hold on to what it could do, let the backbone keep still for longer (--optimization.freeze.backbone "
    "'1 epochs') or learn slower (--optimization.lr_scale.backbone 0.1)"
)


class StartRegression(Callback):
    """Warns where networks fall below the weights that they started from. Every run with ``init_from`` has one.

    Each evaluator's first metric is compared with its value at step 0, and reported at each new low. The effective rank
    of the teacher's features, which needs no labels, is reported once, where it falls below half of its first value.
    """

    def __init__(self) -> None:
        self.lows: dict[tuple[str, str], float] = {}
        self.first_rank: float | None = None
        self.has_fallen = False

    def on_step_end(self, run: TrainingRun, metrics: Mapping[str, float]) -> None:
        rank = metrics.get("effective_rank")
        if not run.is_main or self.has_fallen or rank is None:
            return
        if self.first_rank is None:
            # Before the first step the teacher is what it started from; a resumed run finds that in its rows.
            self.first_rank = run.metrics[0].get("effective_rank") or 0.0
        if rank < self.first_rank / 2:
            self.has_fallen = True
            logger.warning(
                "the effective rank of the features is %.3g at step %d, of the weights that init_from took it was "
                "%.3g. %s",
                rank,
                metrics["step"],
                self.first_rank,
                REMEDY,
            )

    def on_evaluate_end(self, run: TrainingRun, results: Sequence[Mapping[str, Any]]) -> None:
        before = {row["protocol"]: row["metrics"] for row in run.results if row["network"] == INIT_FROM}
        for row in results:
            metric = next(iter(row["metrics"]), "")
            start = before.get(row["protocol"], {}).get(metric)
            if start is None:
                continue
            value, what = row["metrics"][metric], (row["network"], row["protocol"])
            if value < self.lows.get(what, start - NOISE):
                self.lows[what] = value
                logger.warning(
                    "the %s has a %s of %.1f at step %d, the weights that init_from took had %.1f. %s",
                    row["network"],
                    metric,
                    value,
                    row["step"],
                    start,
                    REMEDY,
                )
