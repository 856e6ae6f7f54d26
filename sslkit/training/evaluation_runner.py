"""What a run measures of its networks, and of what needs no training."""

import logging
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from sslkit.contracts import Backbone
from sslkit.distributed import rank
from sslkit.errors import NotFinite, UnknownName
from sslkit.evaluation.baselines import BASELINES, RAW_PIXELS, UNTRAINED, EvaluationCost, cheap, left_out, raw_pixels
from sslkit.evaluation.evaluate import evaluate
from sslkit.evaluation.images import evaluation_data
from sslkit.evaluation.shared_backbone import shared
from sslkit.progress import say
from sslkit.recipe.sections import Data, Evaluation
from sslkit.run_folder.results import INIT_FROM, append_results
from sslkit.training.signals import Interruption
from sslkit.types import Preprocessing

logger = logging.getLogger("sslkit.training")

BASELINES_OPTION = "--evaluation.baselines '[raw-pixels, untrained]'"


class EvaluationRunner:
    """A recipe's evaluators over its data; all processes measure together, the main one writes.

    Args:
        section: what to measure.
        data: the images.
        preprocessing: how evaluators see them.
        device: where the networks are.
        path: results.json.
        interruption: ends an evaluation early; one is complete or leaves no rows.
        num_workers: processes that read images, of each process.

    Raises:
        UnknownName: a baseline that nobody knows.
    """

    def __init__(
        self,
        section: Evaluation,
        data: Data,
        preprocessing: Preprocessing,
        device: torch.device,
        path: Path,
        interruption: Interruption,
        num_workers: int = 0,
    ) -> None:
        for name in section.baselines or ():
            if name not in BASELINES:
                raise UnknownName("baseline", name, BASELINES, where="evaluation.baselines")
        self.section, self.data, self.preprocessing, self.device, self.path = section, data, preprocessing, device, path
        self.num_workers, self.interruption = num_workers, interruption
        self.evaluators = list(section.evaluators)
        self.waiting: list[Mapping[str, Any]] = []
        """Rows for which there was no room yet."""

    def evaluate(self, backbones: Mapping[str, Backbone], step: int) -> Sequence[Mapping[str, Any]]:
        """Evaluate the networks that the recipe names, and return their rows, on the main process.

        Args:
            backbones: of the networks, by name.
            step: optimizer steps taken.

        Returns:
            No rows where the run is asked to stop: an interrupted run evaluates when it goes on.
        """

        def evaluate_all() -> list[Mapping[str, Any]]:
            return [row for name in self.section.networks for row in self.measure(backbones[name], name, step)]

        rows = self.interruption.attempt(evaluate_all) or []
        # No process goes on before all know whether to stop.
        self.interruption.agreed(self.device)
        return rows

    def measure(self, backbone: Backbone, network: str, step: int) -> Sequence[Mapping[str, Any]]:
        """Run every evaluator that the data allow; the main process adds the rows to results.json and returns them."""
        train, test = self.data.train, self.data.test
        if self.evaluators and test is None:
            logger.warning("%s skipped: data.test is null", ", ".join(each.command for each in self.evaluators))
            self.evaluators = []
        if not self.evaluators or test is None:
            return []
        batch_size, workers = self.section.batch_size, self.num_workers
        images = evaluation_data(train, test, self.preprocessing, batch_size, self.device, workers)
        try:
            with shared(backbone, lambda: self.interruption.meet(self.device)) as seen:
                rows = evaluate(seen, self.evaluators, images, network=network, step=step)
        except NotFinite as error:
            # The run itself need not end: its own guard decides that.
            logger.warning("%s is not evaluated at step %d: %s", network, step, error)
            return []
        # One that was skipped has said so and need not say it again.
        measured = {row["evaluator"] for row in rows}
        self.evaluators = [evaluator for evaluator in self.evaluators if evaluator.command in measured]
        if rank() != 0:
            return []
        self.waiting += rows
        try:
            self.sync()
        except OSError as error:
            logger.warning("%s cannot be written (%s); its rows wait", self.path, error)
        return rows

    def sync(self) -> None:
        """Have every row in results.json.

        Raises:
            OSError: rows still wait.
        """
        if self.waiting:
            append_results(self.path, self.waiting)
            self.waiting = []

    def measure_start(self, backbone: Backbone, untrained: Backbone | None = None, views: float = math.inf) -> None:
        """Measure what a run starts with.

        Args:
            backbone: of the networks, before the first step.
            untrained: the same before it took its first weights from elsewhere; None where it did not.
            views: the length of the run: views that pass through its networks, counted as views of the evaluation's
                size.
        """
        start = backbone if untrained is None else untrained.to(self.device)
        for name in self._baselines(start, views):
            if name == UNTRAINED:
                self.measure(start, name, step=0)
            else:
                for variant, pixels in raw_pixels(self.preprocessing.channels).items():
                    self.measure(pixels, variant, step=0)
        if untrained is not None:
            self.measure(backbone, INIT_FROM, step=0)

    def _baselines(self, untrained: Backbone, views: float) -> Sequence[str]:
        """Return the baselines that the recipe names, or else the cheap ones; a line says which are left out."""
        if self.section.baselines is not None:
            return self.section.baselines
        train, test = self.data.train, self.data.test
        if test is None or not any(self._has_labels() or not each.needs_labels for each in self.evaluators):
            return ()
        cost = EvaluationCost(len(train), len(test), self.preprocessing, self.device, self.num_workers)
        pixels, *_ = raw_pixels(self.preprocessing.channels).values()
        costs = cost.baselines({RAW_PIXELS: pixels, UNTRAINED: untrained})
        chosen = cheap(costs, cost.training(untrained, views))
        if note := left_out(costs, chosen, BASELINES_OPTION):
            say(note)
        return chosen

    def _has_labels(self) -> bool:
        train, test = self.data.train, self.data.test
        return train.labels is not None and test is not None and test.labels is not None
