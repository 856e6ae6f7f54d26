"""Detect collapse during training; warn, or stop where the recipe says so."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cache
from typing import Any, Literal

from sslkit.contracts import Callback, TrainingRun
from sslkit.distributed import from_main
from sslkit.errors import RunError
from sslkit.health.verdict import LASTING_ROWS, LASTING_STEPS, NO_CAUSE, NO_GAIN, Verdict, causes, judge
from sslkit.recommendation import Recommendation, overrides

logger = logging.getLogger("sslkit.training")

OnCollapse = Literal["warn", "stop", "ignore"]

MEMORY = LASTING_STEPS + LASTING_ROWS
"""Rows that are kept: more are never judged by."""


class CollapseMonitor(Callback):
    """Diagnoses a run at each logged step and reports each new failure mode with its probable cause. Every run has one.

    Args:
        policy: whether a failing run goes on with a warning, stops, or is not diagnosed.
        recommendations: for the recipe; those that explain a failure mode are reported as its causes.
        of_images: returns what is wrong with the images; asked once, by the first row that is diagnosed.
    """

    def __init__(
        self,
        policy: OnCollapse,
        recommendations: Sequence[Recommendation],
        of_images: Callable[[], Iterable[Recommendation]] = tuple,
    ) -> None:
        self.policy = policy
        self.recommendations = recommendations
        self.of_images = cache(lambda: list(of_images()))
        self.rows: list[Mapping[str, float]] = []
        self.results: Sequence[Mapping[str, Any]] = ()
        self.name = self.message = ""

    def on_run_start(self, run: TrainingRun) -> None:
        if run.is_main:
            self.rows, self.results = list(run.metrics)[-MEMORY:], run.results

    def on_evaluate_end(self, run: TrainingRun, results: Sequence[Mapping[str, Any]]) -> None:
        self.results = run.results

    def on_step_end(self, run: TrainingRun, metrics: Mapping[str, float]) -> None:
        if self.policy == "ignore":
            return
        if run.is_main:
            self.rows = [*self.rows, metrics][-MEMORY:]
            self._report(judge(self.rows, self.results, run.clock.total_steps, self.of_images))
        # The evaluations are the main process's alone, and all have to stop together.
        if self.policy == "stop" and (message := from_main(self.message)):
            raise RunError(
                f"{message}\nThe run stops because of runtime.on_collapse; checkpoints from before are in "
                f"{run.run_dir / 'checkpoints'}, and `sslkit doctor {run.run_dir}` draws what led to it"
            )

    def on_run_end(self, run: TrainingRun) -> None:
        """Report what the last evaluation shows, which no step comes after."""
        is_over = run.clock.step >= run.clock.total_steps
        if self.policy != "warn" or not (run.is_main and self.rows and is_over):
            return
        verdict = judge(self.rows, run.results, run.clock.total_steps, self.of_images)
        self._report(verdict)
        if verdict.name == NO_GAIN:
            logger.warning("step %d: %s", verdict.step, verdict)

    def _report(self, verdict: Verdict) -> None:
        """Log a failure mode once, and keep the message for the processes that stop together."""
        name = verdict.name if verdict.is_failure else ""
        if name == self.name:
            return
        recovered = f"step {verdict.step}: {self.name} is no longer seen"
        self.name, self.message = name, self._words(verdict) if name else ""
        if self.policy == "warn":
            logger.warning(self.message or recovered)

    def _words(self, verdict: Verdict) -> str:
        found = causes(verdict, [*self.recommendations, *self.of_images()])
        because = "".join(f"\n  cause: {recommendation}\n  {_attempt(recommendation)}" for recommendation in found)
        return f"step {verdict.step}: {verdict}" + (because or f"\n  {NO_CAUSE}")


def _attempt(recommendation: Recommendation) -> str:
    changes = overrides(recommendation.fix)
    return f"try:   {' '.join(changes)}" if changes else "no single change is known to fix it"
