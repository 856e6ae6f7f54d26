"""A run: steps, rows, evaluations, checkpoints, and a folder that is usable whenever it stops."""

import logging
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from sslkit.checkpoint.manager import CheckpointManager
from sslkit.contracts import Backbone, TrainingRun
from sslkit.data.substitution import UnreadableLog
from sslkit.device import COMPILE_OPTIONS, choose_device, choose_precision
from sslkit.distributed import from_main, rank, wait_for_all, world_size
from sslkit.method.branch import Branch
from sslkit.method.gradients import Clip
from sslkit.method.step import StepOutput, train_step
from sslkit.optimizers.parameter_groups import set_rates
from sslkit.recipe.model import build_model, build_optimizer
from sslkit.recipe.sections import BuiltRecipe
from sslkit.recipe.validation import validate
from sslkit.run_folder.atomic_write import FULL, writable
from sslkit.run_folder.folder import Record, RunFolder
from sslkit.run_folder.metrics_log import StepRows, read_metrics
from sslkit.run_folder.results import drop_results, read_results
from sslkit.run_folder.skipped_steps import SkippedSteps
from sslkit.run_folder.trackers import Trackers
from sslkit.schedules import value_at
from sslkit.training.accelerated import AccelerateExecutor, start_accelerator
from sslkit.training.evaluation_runner import EvaluationRunner
from sslkit.training.intervals import is_due, is_logged
from sslkit.training.loader import Batch, StepBatches, default_workers, load_batches
from sslkit.training.metrics_row import step_row
from sslkit.training.progress import ProgressDisplay
from sslkit.training.setup import preprocessing_of, start_clock
from sslkit.training.signals import Interruption
from sslkit.training.stopwatch import Stopwatch
from sslkit.training.visualization import VisualizationData
from sslkit.types import Views

logger = logging.getLogger("sslkit.training")


class Trainer:
    """One execution of a recipe; callbacks see this object.

    Args:
        built: the built recipe.
        record: what the folder says about it.
        folder: where it lives; nothing is written before `execute`.
        teacher: a branch to start the teacher from; None copies the student.
        console: where progress is shown; None is standard error.
        untrained: the backbone before it took its first weights from elsewhere; None where it did not.

    Raises:
        RecipeError: the components do not fit one another, the batch or the machine.
    """

    def __init__(
        self,
        built: BuiltRecipe,
        record: Record,
        folder: Path,
        teacher: Branch | None = None,
        console: Console | None = None,
        untrained: Backbone | None = None,
    ) -> None:
        self.built = built
        self.untrained = untrained
        self.console = console or Console(stderr=True)
        self.device = choose_device(built.runtime.device)
        if built.runtime.threads is not None:
            torch.set_num_threads(built.runtime.threads)
        precision = choose_precision(built.precision, self.device)
        self.record = replace(record, device=str(self.device), precision=precision)
        # Before anything asks how many processes there are.
        self.accelerator = start_accelerator(self.device, precision)
        # Processes start at different moments, so that a folder named after the time is the main one's to choose.
        self.folder = RunFolder(from_main(folder))
        self.trackers = Trackers(built.runtime.trackers, record.name, self.folder.path)
        self.clock = start_clock(built)
        self.model = build_model(built.method, teacher, self.device, built.runtime.checkpoint_activations)
        if built.runtime.compile:
            for branch in self.branches().values():
                branch.backbone.compile(options=COMPILE_OPTIONS)
        self.executor = AccelerateExecutor(self.accelerator)
        self.executor.prepare(self.model.student, self.model.teacher)
        self.optimizer = build_optimizer(built.optimization, self.model.student)
        self.preprocessing = preprocessing_of(built)
        workers = built.runtime.num_workers
        self.num_workers = default_workers(built.data.train, world_size(), built.views) if workers is None else workers
        self.interruption = Interruption(self._answer_signal)
        self.evaluation_runner = EvaluationRunner(
            built.evaluation,
            built.data,
            self.preprocessing,
            self.device,
            self.folder.results,
            self.num_workers,
            lambda: self.interruption.meet(self.device),
        )
        self.unreadable = UnreadableLog(len(built.data.train), built.runtime.unreadable_limit)
        keep = built.runtime.keep_checkpoints
        self.checkpoint_manager = CheckpointManager(
            self.folder, self.model, self.optimizer, self.executor, record.identity, keep
        )
        validate(built.method, built.views, built.optimization, built.runtime, world_size())

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return rank() == 0

    @property
    def name(self) -> str:
        """The name of the recipe."""
        return self.record.name

    @property
    def run_dir(self) -> Path:
        """The run folder."""
        return self.folder.path

    @property
    def student(self) -> Branch:
        """The network that learns."""
        return self.model.student

    @property
    def teacher(self) -> Branch:
        """The network that follows."""
        return self.model.teacher

    @property
    def interrupted(self) -> bool:
        """Whether the run is asked to stop after the step that it is in, with everything saved; may be set."""
        return self.interruption.asked

    @interrupted.setter
    def interrupted(self, asked: bool) -> None:
        self.interruption.asked = asked

    @property
    def metrics(self) -> Sequence[Mapping[str, float]]:
        """The rows of metrics.jsonl."""
        return read_metrics(self.folder.metrics)

    @property
    def results(self) -> Sequence[Mapping[str, Any]]:
        """The rows of results.json."""
        return read_results(self.folder.results)

    def execute(self, resume: bool = False) -> None:
        """Train to the end, or to an interruption, from the newest checkpoint if there is one and ``resume``.

        Raises:
            SSLKitError: the folder is in use, or is not this run's to write.
            RunError: too many steps in a row moved nothing, or the end cannot be saved.
        """
        with self.folder.held(self.record, resume) if self.is_main else nullcontext(), closing(self.trackers):
            self._start(resume)
            self._fire("on_run_start")
            if self.clock.step == 0:
                self._measure_start()
                wait_for_all()
            with ProgressDisplay(self.clock, self.clock.step, self.console) as display, self.interruption.by_signals():
                self._train(display)
                self._finish()
            self._fire("on_run_end")
        # A launcher ends all processes as soon as one ends with a code other than 0.
        wait_for_all()

    def _start(self, resume: bool) -> None:
        """Take up the newest checkpoint, and forget what was written after it: it is done again."""
        if self.is_main:
            self.trackers.start(self.record.recipe)
            self.folder.start(self.record, self.preprocessing, resume)
        else:
            self.console.quiet = True
        wait_for_all()
        with writable(self.folder.path):
            first = self.checkpoint_manager.load() or 0
            # The evaluation at the checkpoint, or the baselines before the first step, are done again too.
            if self.is_main:
                self.trackers.go_on(first, self.metrics, self.results)
                drop_results(self.folder.results, since=first)
            self.rows = StepRows(self.folder.metrics, first, self.is_main)
            self.skipped = SkippedSteps(self.folder.skipped, first, self.is_main, self.executor.scale)
        self.clock = self.clock.at(first)

    def _fire(self, hook: str, *arguments: Any) -> None:
        """Fire a hook of every callback; one that has no room for what it writes costs a warning."""
        run: TrainingRun = self
        for callback in self.built.runtime.callbacks:
            try:
                getattr(callback, hook)(run, *arguments)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                logger.warning("%s: %s", type(callback).__name__, error)

    def _answer_signal(self) -> None:
        self.console.print("stopping after this step, with everything saved; once more stops at once", highlight=False)

    @property
    def visualization(self) -> VisualizationData:
        """Images, views and features for pictures."""
        return VisualizationData(
            self.built,
            self.preprocessing,
            self.device,
            self.model.teacher.backbone,
            lambda: self.make_views(self.batches()[0], epoch=0),
        )

    def _train(self, display: ProgressDisplay) -> None:
        if self.clock.step:
            self._evaluate_at_cadence(display)
        stopwatch = Stopwatch(self.clock.step)
        with closing(self._batches()) as batches:
            while self.clock.step < self.clock.total_steps and not self._is_asked_to_stop():
                self._advance(batches, stopwatch, display)
                with stopwatch.paused():
                    self._at_cadence(display)

    def _advance(self, batches: Iterator[tuple[int, Batch]], stopwatch: Stopwatch, display: ProgressDisplay) -> None:
        """Take the next step; nothing that it leaves takes up memory during the one after it."""
        with stopwatch.waiting():
            # Several processes take a step together or not at all.
            found = self.interruption.attempt(lambda: next(batches)) if world_size() == 1 else next(batches)
        if found is None:
            return
        _, batch = found
        self.unreadable.record(len(batch.keys), batch.unreadable)
        output = self._step(batch)
        self.skipped.note(self.clock.step + 1, batch.keys, output.flags)
        display.step(self.clock)
        if is_logged(self.clock, self.built.runtime.log_every):
            self._log(output, stopwatch, display)
        self.clock = self.clock.at(self.clock.step + 1)

    def _measure_start(self) -> None:
        """Measure what needs no training; later on, the backbone from before its first weights is of no use."""
        self.evaluation_runner.measure_start(self.model.student.backbone, self.untrained)
        self.trackers.evaluated(self.results)
        self.untrained = None

    def _is_asked_to_stop(self) -> bool:
        """Whether the run stops here; several processes agree only where they wait for one another anyway."""
        runtime, evaluation = self.built.runtime, self.built.evaluation
        meets = self.clock.step % runtime.log_every == 0 or any(
            is_due(every, self.clock) for every in (runtime.checkpoint_every, evaluation.every)
        )
        return (meets or world_size() == 1) and self.interruption.agreed(self.device)

    def _log(self, output: StepOutput, stopwatch: Stopwatch, display: ProgressDisplay) -> None:
        self.skipped.read()
        row = step_row(self.built, self.clock, output, self.skipped.count)
        row |= stopwatch.read(self.clock.step + 1, self.built.optimization.batch_size)
        self.rows.write(row)
        self.trackers.log(row)
        display.show(self.clock, row)
        self._fire("on_step_end", row)
        runtime = self.built.runtime
        if len(self.skipped.streak) >= runtime.skip_limit:
            step, precision = self.clock.step + 1, self.record.precision
            display.say(self.checkpoint_manager.go_back(self.skipped, step, runtime.roll_backs, precision))

    def _step(self, batch: Batch) -> StepOutput:
        plan, clock = self.built.optimization, self.clock
        self.executor.start_step(self.built.seed, clock.step)
        set_rates(self.optimizer, plan.learning_rate(clock), value_at(plan.weight_decay, clock))
        return train_step(
            self.model,
            self.make_views(batch, clock.epoch),
            self.optimizer,
            clock,
            clip=None if plan.clip_grad_norm is None else Clip(plan.clip_grad_norm, plan.clip_per),
            frozen=[part for part, duration in plan.freezes.items() if clock.step < duration.steps(clock)],
            accumulation=self.built.runtime.accumulation,
            executor=self.executor,
        )

    def make_views(self, batch: Batch, epoch: int) -> Views:
        """Return the views of a batch on the run's device."""
        prepared = [tensor.to(self.device, non_blocking=True) for tensor in batch.prepared]
        return self.built.views.make(prepared, batch.keys, epoch, self.built.seed)

    def batches(self) -> StepBatches:
        """Return this process's batch of each step."""
        return StepBatches(
            self.built.data.train,
            self.built.views,
            self.clock,
            self.built.optimization.batch_size,
            self.built.seed,
            rank(),
            world_size(),
        )

    def _batches(self) -> Generator[tuple[int, Batch], None, None]:
        return load_batches(self.batches(), self.clock.step, self.num_workers, pin_memory=self.device.type == "cuda")

    def _at_cadence(self, display: ProgressDisplay) -> None:
        """Save and evaluate between steps where it is time."""
        stops = self._is_asked_to_stop()
        if is_due(self.built.runtime.checkpoint_every, self.clock):
            self.skipped.read()
            if not stops and self.checkpoint_manager.has_news(self.skipped):
                self.save()
        if not stops:
            self._evaluate_at_cadence(display)

    def _evaluate_at_cadence(self, display: ProgressDisplay) -> None:
        if is_due(self.built.evaluation.every, self.clock):
            for row in self.evaluate():
                display.say_result(self.clock, row)

    def _finish(self) -> None:
        """Leave a folder that can be resumed, evaluated and exported."""
        self.skipped.read()
        self.save()
        if not self.interruption.agreed(self.device):
            self.evaluate()
        if self.checkpoint_manager.failure or self.evaluation_runner.waiting:
            self.save()
        self.checkpoint_manager.check(self.clock.step)

    def save(self) -> None:
        """Write a checkpoint and both backbones, or warn why that cannot be."""
        rows = (self.rows, self.skipped.rows, self.evaluation_runner)
        path = self.checkpoint_manager.save(self.clock.step, rows, self.skipped)
        if path is not None:
            self._fire("on_checkpoint", path)

    def branches(self) -> dict[str, Branch]:
        """Return both networks by name."""
        return {"teacher": self.model.teacher, "student": self.model.student}

    def evaluate(self) -> Sequence[Mapping[str, Any]]:
        """Run the recipe's evaluators on its networks and add the rows to results.json.

        An interrupted run does so when it goes on.
        """
        rows = self.interruption.attempt(self._measure) or []
        self.interruption.agreed(self.device)
        if rows:
            self._fire("on_evaluate_end", rows)
        return rows

    def _measure(self) -> Sequence[Mapping[str, Any]]:
        rows: list[Mapping[str, Any]] = []
        for name in self.built.evaluation.networks:
            found = self.evaluation_runner.measure(self.branches()[name].backbone, name, self.clock.step)
            self.trackers.evaluated(found)
            rows += found
        return rows
