"""Train a recipe: steps, rows of metrics, evaluations and checkpoints, in a run folder that can always be resumed."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

from rich.console import Console

from sslkit.checkpoint.manager import CheckpointManager
from sslkit.checks.classes import full_name
from sslkit.checks.outputs import check_views
from sslkit.contracts import Backbone, TrainingRun
from sslkit.data.substitution import UnreadableLog
from sslkit.distributed import from_main, rank, wait_for_all, world_size
from sslkit.errors import ComponentError, RunError, SSLKitError
from sslkit.method.branch import Branch
from sslkit.method.finite_guard import nonfinite_state
from sslkit.method.gradients import Clip
from sslkit.method.step import StepOutput, train_step
from sslkit.optimizers.parameter_groups import set_rates
from sslkit.progress import showing
from sslkit.recipe.model import build_model, build_optimizer
from sslkit.recipe.sections import BuiltRecipe
from sslkit.recipe.validation import check_memory, validate
from sslkit.run_folder.atomic_write import FULL
from sslkit.run_folder.folder import Record, RunFolder
from sslkit.run_folder.metrics_log import read_metrics
from sslkit.run_folder.results import read_results
from sslkit.run_folder.trackers import Trackers
from sslkit.schedules import value_at
from sslkit.training.evaluation_runner import EvaluationRunner
from sslkit.training.loader import Batch, StepBatches, default_workers, load_batches
from sslkit.training.metrics_row import step_row
from sslkit.training.progress import ProgressDisplay
from sslkit.training.resume_policy import ResumePolicy
from sslkit.training.setup import (
    compile_backbones,
    intervals_of,
    preprocessing_of,
    start_clock,
    start_process,
    views_seen,
)
from sslkit.training.signals import Interruption
from sslkit.training.skip_policy import SkipPolicy
from sslkit.training.stopwatch import Stopwatch
from sslkit.training.visualization import VisualizationData
from sslkit.types import Views

logger = logging.getLogger("sslkit.training")


@cache
def _warn_of_answer(name: str, answer: str) -> None:
    logger.warning("%s returns %s, which nothing reads; to stop the run, set run.interrupted = True", name, answer)


class Trainer:
    """One run of a recipe; callbacks read it as a `TrainingRun`.

    Args:
        built: the built recipe.
        record: what the run folder says about the run.
        folder: the run folder; nothing is written before `execute`.
        teacher: a branch to start the teacher from; None copies the student.
        console: where progress is shown; None is standard error.
        untrained: the backbone before it took its first weights from elsewhere; None where it did not.

    Raises:
        RecipeError: the components do not fit one another, the batch or the machine.
        DataError: the views cannot be made of the first image.
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
        runtime = built.runtime
        self.built, self.untrained, self.console = built, untrained, console or Console(stderr=True)
        # First of all: it decides the device, and how many processes there are.
        self.device, precision, self.executor = start_process(built)
        self.record = replace(record, device=str(self.device), precision=precision)
        # Processes start at different moments, so the main one chooses a folder that is named after the time.
        self.folder = RunFolder(from_main(folder))
        self.clock, self.intervals = start_clock(built), intervals_of(built)
        self.model = build_model(built.method, teacher, self.device, runtime.checkpoint_activations)
        if runtime.compile:
            compile_backbones(self.branches().values())
        # Before the optimizer, which holds the parameters that are left then.
        self.executor.prepare(self.model.student, self.model.teacher)
        self.optimizer = build_optimizer(built.optimization, self.model.student)
        self.preprocessing = preprocessing_of(built)
        self.trackers = Trackers(runtime.trackers, record.name, self.folder.path)
        self.interruption = Interruption(self._acknowledge_signal)
        self.unreadable = UnreadableLog(len(built.data.train), runtime.unreadable_limit)
        workers = runtime.num_workers
        self.num_workers = default_workers(built.data.train, world_size(), built.views) if workers is None else workers
        self.checkpoint_manager = CheckpointManager(
            self.folder, self.model, self.optimizer, self.executor, record.identity, runtime.keep_checkpoints
        )
        self.evaluation_runner = EvaluationRunner(
            built.evaluation, built.data, self.preprocessing, self.device, self.folder.results, self.interruption,
            self.num_workers,
        )  # fmt: skip
        validate(built.method, built.views, built.optimization, runtime, world_size())
        check_memory(built.views.sizes, built.views.channels, built.optimization.batch_size // world_size())
        self.batches().try_first_image()

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

    def branches(self) -> dict[str, Branch]:
        """Return both networks by name."""
        return {"teacher": self.teacher, "student": self.student}

    def execute(self, resume: bool = False) -> None:
        """Train to the end or to an interruption, from the newest checkpoint if there is one and ``resume``.

        Raises:
            SSLKitError: the folder is in use, or is not this run's to write.
            RunError: too many steps in a row moved nothing, or the end cannot be saved.
        """
        self.console.quiet = self.console.quiet or not self.is_main
        held = self.folder.held(self.record, resume) if self.is_main else nullcontext()
        with held, closing(self.trackers), showing(self.console) as shown:
            self._start(resume)
            self._fire("on_run_start")
            if self.clock.step == 0:
                self._evaluate_start()
            # Created after the resume: the time left is counted from here.
            self.display = ProgressDisplay(self.clock, self.clock.step, shown)
            with self.display, self.interruption.by_signals():
                self._train()
                self._finish()
            self._fire("on_run_end")
        # A launcher ends all processes as soon as one ends with a code other than 0.
        wait_for_all()

    def _start(self, resume: bool) -> None:
        policy = ResumePolicy(
            self.folder, self.record, self.preprocessing, self.checkpoint_manager, self.trackers, self.built.data.train
        )
        resumed = policy.start(resume)
        self.clock, self.rows, self.skipped = self.clock.at(resumed.step), resumed.rows, resumed.skipped
        runtime = self.built.runtime
        self.skip_policy = SkipPolicy(
            self.skipped, self.checkpoint_manager, runtime.skip_limit, runtime.roll_backs, self.record.precision
        )

    def _evaluate_start(self) -> None:
        views = views_seen(self.built, self.clock, self.preprocessing.size)
        self.evaluation_runner.measure_start(self.student.backbone, self.untrained, views)
        self.trackers.evaluated(self.results)
        # It takes memory and is of no more use.
        self.untrained = None
        wait_for_all()

    def _train(self) -> None:
        if self.clock.step:
            self._evaluate_if_due()
        stopwatch = Stopwatch(self.clock.step)
        pin_memory = self.device.type == "cuda"
        batches = load_batches(self.batches(), self.clock.step, self.num_workers, pin_memory=pin_memory)
        with closing(batches):
            while self.clock.step < self.clock.total_steps and not self._is_asked_to_stop():
                self._advance(batches, stopwatch)
                with stopwatch.paused():
                    self._save_if_due()

    def _advance(self, batches: Iterator[tuple[int, Batch]], stopwatch: Stopwatch) -> None:
        """Take the next step; nothing that it leaves takes up memory during the one after it."""
        with stopwatch.waiting(), self._saved_on_error():
            # Several processes take a step together or not at all.
            found = self.interruption.attempt(lambda: next(batches)) if world_size() == 1 else next(batches)
            if found is None:
                return
            _, batch = found
            self.unreadable.record(len(batch.keys), batch.unreadable)
        output = self._step(batch)
        self.skipped.note(self.clock.step + 1, batch.keys, output.flags)
        self.display.step(self.clock)
        if self.intervals.logs(self.clock):
            self._log(output, stopwatch)
        self.clock = self.clock.at(self.clock.step + 1)

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

    def _log(self, output: StepOutput, stopwatch: Stopwatch) -> None:
        """Write the row of a step, and act where too many steps in a row moved nothing."""
        step = self.clock.step + 1
        self.skipped.read()
        row = step_row(self.built, self.clock, output, self.skipped.count)
        row |= stopwatch.read(step, self.built.optimization.batch_size)
        names = nonfinite_state(self.model, self.optimizer, self.executor)
        row |= {"nonfinite_tensors": len(names)} if names else {}
        self.rows.write(row)
        self.trackers.log(row)
        self.display.show(self.clock, row)
        self._fire("on_step_end", row)
        self._refuse(names, step)
        if message := self.skip_policy.apply(step):
            self.display.say(message)

    def _check_weights(self, step: int) -> None:
        """End the run before weights that are not finite are saved, and say so in a row of its own."""
        if names := nonfinite_state(self.model, self.optimizer, self.executor):
            epoch = step / self.clock.steps_per_epoch
            self.rows.write({"step": step, "epoch": epoch, "loss": math.nan, "nonfinite_tensors": len(names)})
        self._refuse(names, step)

    def _refuse(self, names: Sequence[str], step: int) -> None:
        """End the run where these weights, buffers or moments are not finite.

        Raises:
            RunError: the update of a step was not finite, although its gradients were.
        """
        if names:
            others = f" and {len(names) - 1} others" if names[1:] else ""
            raise RunError(
                f"step {step}: {names[0]}{others} are not finite, though the gradients were: the optimizer's update "
                f"overflowed. Nothing of it is saved; {self.checkpoint_manager.latest}. Try a lower optimization.lr or "
                "weight_decay, or a larger eps of the optimizer"
            )

    def _save_if_due(self) -> None:
        """Save, and evaluate, between steps where it is time."""
        stops = self._is_asked_to_stop()
        if self.intervals.saves(self.clock):
            self.skipped.read()
            if not stops and self.skip_policy.has_news():
                self.save()
        if not stops:
            self._evaluate_if_due()

    def _evaluate_if_due(self) -> None:
        if self.intervals.evaluates(self.clock):
            with self._saved_on_error():
                rows = self.evaluate()
            for row in rows:
                self.display.say_result(self.clock, row)

    @contextmanager
    def _saved_on_error(self) -> Iterator[None]:
        """Save the steps taken where something between two steps fails, such as the reading of images.

        Of several processes each has errors of its own, and none can save without the others.
        """
        try:
            yield
        except SSLKitError as error:
            if world_size() == 1 and self.clock.step:
                self.skipped.read()
                if self.clock.step > self.checkpoint_manager.step and self.skip_policy.has_news():
                    self.save()
                error.args = (f"{str(error).rstrip('.')}. {self.checkpoint_manager.saved}",)
            raise

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
        """Write a checkpoint and both backbones, or warn why that cannot be.

        Raises:
            RunError: weights are not finite; what was saved before stays.
        """
        self._check_weights(self.clock.step)
        rows = (self.rows, self.skipped.rows, self.evaluation_runner)
        path = self.checkpoint_manager.save(self.clock.step, rows, self.skip_policy.extra_checkpoints)
        if path is not None:
            self._fire("on_checkpoint", path)

    def evaluate(self) -> Sequence[Mapping[str, Any]]:
        """Run the recipe's evaluators on its networks, add the rows to results.json and return them.

        An interrupted run does so when it goes on.
        """
        backbones = {name: branch.backbone for name, branch in self.branches().items()}
        rows = self.evaluation_runner.evaluate(backbones, self.clock.step)
        if rows:
            self.trackers.evaluated(rows)
            self._fire("on_evaluate_end", rows)
        return rows

    def make_views(self, batch: Batch, epoch: int) -> Views:
        """Return the views of a batch on the run's device."""
        prepared = [tensor.to(self.device, non_blocking=True) for tensor in batch.prepared]
        views = self.built.views.make(prepared, batch.keys, epoch, self.built.seed)
        return check_views(self.built.views, views, len(batch.keys))

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

    @property
    def visualization(self) -> VisualizationData:
        """Images, views and features for pictures."""

        def first_views() -> Views:
            return self.make_views(self.batches()[0], epoch=0)

        return VisualizationData(self.built, self.preprocessing, self.device, self.teacher.backbone, first_views)

    def _is_asked_to_stop(self) -> bool:
        """Whether the run stops here; several processes agree only where they wait for one another anyway."""
        waits = world_size() == 1 or self.intervals.synchronizes(self.clock)
        return waits and self.interruption.agreed(self.device)

    def _acknowledge_signal(self) -> None:
        self.console.print("stopping after this step, with everything saved; once more stops at once", highlight=False)

    def _fire(self, hook: str, *arguments: Any) -> None:
        """Fire a hook of every callback; one that has no room for what it writes costs a warning."""
        run: TrainingRun = self
        for callback in self.built.runtime.callbacks:
            before = dict(vars(self))
            try:
                if (answer := getattr(callback, hook)(run, *arguments)) is not None:
                    _warn_of_answer(f"{full_name(type(callback))}.{hook}", type(answer).__name__)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                logger.warning("%s: %s", type(callback).__name__, error)
            if changed := [name for name, value in before.items() if vars(self).get(name) is not value]:
                name = f"{full_name(type(callback))}.{hook}"
                raise ComponentError(f"{name} sets run.{changed[0]}; a callback may set run.interrupted alone")
