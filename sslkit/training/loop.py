"""A run: steps, rows, evaluations, checkpoints, and a folder that is usable whenever it stops."""

import logging
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing, nullcontext
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs
from rich.console import Console

from sslkit.clock import Clock, Duration
from sslkit.contracts import Backbone
from sslkit.data.substitution import UnreadableLog
from sslkit.distributed import from_main, max_over_processes, mean_over_processes, rank, wait_for_all, world_size
from sslkit.errors import RunError
from sslkit.schedules import value_at
from sslkit.sections import Parts
from sslkit.student_teacher import Branch
from sslkit.training.accelerated import AccelerateExecutor
from sslkit.training.checkpoint import Progress, load_newest, save_checkpoint
from sslkit.training.device import choose_device, choose_precision, seed_step
from sslkit.training.diagnostics import diagnose
from sslkit.training.disk import FULL, writable
from sslkit.training.display import Display
from sslkit.training.init_from import INIT_FROM
from sslkit.training.interruption import interruptible
from sslkit.training.loader import Batch, StepBatches, default_workers, load_batches
from sslkit.training.log import StepRows, as_numbers, drop_results, read_metrics, read_results
from sslkit.training.measurements import Measurements
from sslkit.training.optimizers import set_rates
from sslkit.training.run_folder import Record, RunFolder
from sslkit.training.setup import build_model, build_optimizer, check_step, data_statistics, start_clock
from sslkit.training.showcase import Showcase
from sslkit.training.skipped import SkippedSteps
from sslkit.training.step import Clip, StepOutput, train_step
from sslkit.training.stopwatch import Stopwatch
from sslkit.types import Views

logger = logging.getLogger("sslkit.training")

LONGEST_EVALUATION = timedelta(hours=12)
"""The main process evaluates alone; the others wait this long for it."""


class Run:
    """One execution of a recipe; callbacks see this object.

    Args:
        parts: the filled recipe.
        record: what the folder says about it.
        folder: where it lives; nothing is written before `execute`.
        teacher: a branch to start the teacher from; None copies the student.
        console: where progress is shown; None is standard error.
        untrained: the backbone before it took its first weights from elsewhere; None where it did not.

    Raises:
        RecipeError: the parts do not fit one another, the batch or the machine.
    """

    def __init__(
        self,
        parts: Parts,
        record: Record,
        folder: Path,
        teacher: Branch | None = None,
        console: Console | None = None,
        untrained: Backbone | None = None,
    ) -> None:
        self.parts = parts
        self.untrained = untrained
        self.console = console or Console(stderr=True)
        self.device = choose_device(parts.runtime.device)
        if parts.runtime.threads is not None:
            torch.set_num_threads(parts.runtime.threads)
        precision = choose_precision(parts.precision, self.device)
        self.record = replace(record, device=str(self.device), precision=precision)
        # Before anything asks how many processes there are. accelerate keeps one state a process; a second run in it
        # may have another precision.
        AcceleratorState._reset_state()
        self.accelerator = Accelerator(
            cpu=self.device.type == "cpu",
            mixed_precision="no" if precision == "fp32" else precision,
            kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_EVALUATION)],
        )
        # Processes start at different moments, so that a folder named after the time is the main one's to choose.
        self.folder = RunFolder(from_main(folder))
        self.clock = start_clock(parts)
        self.model = build_model(parts.method, teacher, self.device)
        if parts.runtime.compile:
            for branch in self.branches().values():
                branch.backbone.compile()
        self.executor = AccelerateExecutor(self.accelerator, self.model.student)
        self.optimizer = build_optimizer(parts.optimization, self.model.student)
        self.statistics = data_statistics(parts)
        workers = parts.runtime.num_workers
        self.num_workers = default_workers(parts.data.train, world_size(), parts.views) if workers is None else workers
        self.measurements = Measurements(
            parts.evaluation, parts.data, self.statistics, self.device, self.folder.results, self.num_workers
        )
        self.unreadable = UnreadableLog(len(parts.data.train), parts.runtime.unreadable_limit)
        self.interrupted = False
        self.saved = 0
        """The step of the newest checkpoint."""
        self.unsaved: OSError | None = None
        """What kept the run from a newer one."""
        check_step(parts, self.model)

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes."""
        return rank() == 0

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
        with self.folder.held(self.record, resume) if self.is_main else nullcontext():
            self._start(resume)
            self._tell("on_run_start")
            if self.clock.step == 0:
                self._measure_start()
                wait_for_all()
            with Display(self.clock, self.clock.step, self.console) as display, interruptible(self.interrupt):
                self._train(display)
                self._finish()
            self._tell("on_run_end")

    def _start(self, resume: bool) -> None:
        """Take up the newest checkpoint, and forget what was written after it: it is done again."""
        if self.is_main:
            self.folder.start(self.record, self.statistics, resume)
        else:
            self.console.quiet = True
        wait_for_all()
        with writable(self.folder.path):
            first = self._load() or 0
            # The evaluation at the checkpoint, or the baselines before the first step, are done again too.
            if self.is_main:
                drop_results(self.folder.results, since=first)
            self.rows = StepRows(self.folder.metrics, first, self.is_main)
            self.skipped = SkippedSteps(self.folder.skipped, first, self.is_main, self.executor.scale)
        self.clock, self.saved = self.clock.at(first), first

    def _load(self, before: int | None = None) -> int | None:
        """Take up the newest checkpoint, of fewer steps than ``before``, and return its step, or None."""
        identity, folder = self.record.identity, self.folder.checkpoints
        return load_newest(folder, self.model, self.optimizer, identity, self.executor, before)

    def _tell(self, hook: str, *words: Any) -> None:
        """Fire a hook of every callback; one that has no room for what it writes costs a warning."""
        for callback in self.parts.runtime.callbacks:
            try:
                getattr(callback, hook)(self, *words)
            except OSError as error:
                if error.errno not in FULL:
                    raise
                logger.warning("%s: %s", type(callback).__name__, error)

    def interrupt(self) -> None:
        """Ask the run to stop after the step that it is in, with everything saved."""
        self.interrupted = True
        self.console.print("finishing this step, then saving; once more stops at once", highlight=False)

    @property
    def showcase(self) -> Showcase:
        """Images, views and features for pictures."""
        return Showcase(
            self.parts,
            self.statistics,
            self.device,
            self.model.teacher.backbone,
            lambda: self.make_views(self.batches()[0], epoch=0),
        )

    def _train(self, display: Display) -> None:
        if self.clock.step:
            self._evaluate_at_cadence(display)
        stopwatch = Stopwatch(self.clock.step)
        with closing(self._batches()) as steps:
            while self.clock.step < self.clock.total_steps and not self._is_asked_to_stop():
                with stopwatch.waiting():
                    _, batch = next(steps)
                self.unreadable.record(len(batch.keys), batch.unreadable)
                output = self._step(batch)
                self.skipped.note(self.clock.step + 1, batch.keys, output.flaws)
                display.step(self.clock)
                if self._is_logged():
                    self._log(output, stopwatch, display)
                self.clock = self.clock.at(self.clock.step + 1)
                with stopwatch.paused():
                    self._at_cadence(display)

    def _measure_start(self) -> None:
        """Measure what needs no training, and the weights that the networks took from elsewhere."""
        backbone = self.model.student.backbone
        if self.untrained is None:
            self.measurements.measure_baselines(backbone)
        else:
            self.measurements.measure_baselines(self.untrained.to(self.device))
            self.measurements.measure(backbone, INIT_FROM, step=0)
            self.untrained = None

    def _is_asked_to_stop(self) -> bool:
        """Whether any process was interrupted. Several agree where rows are written, to wait for nothing else."""
        if world_size() > 1 and (self.clock.step == 0 or self.clock.step % self.parts.runtime.log_every == 0):
            asked = torch.tensor(float(self.interrupted), device=self.device)
            self.interrupted = bool(max_over_processes(asked))
            return self.interrupted
        return self.interrupted and world_size() == 1

    def _log(self, output: StepOutput, stopwatch: Stopwatch, display: Display) -> None:
        self.skipped.read()
        row = self._row(output, stopwatch)
        self.rows.write(row)
        display.show(self.clock, row)
        self._tell("on_step_end", row)
        if len(self.skipped.streak) >= self.parts.runtime.skip_limit:
            self._go_back(display)

    def _go_back(self, display: Display) -> None:
        """Set everything but the clock back to before steps that moved nothing, so that their images are left out.

        What was not finite once would not be the second time either (PaLM §5.1, arXiv:2204.02311, skips such batches).

        Raises:
            RunError: there is no such checkpoint, or the recipe does not want it so often.
        """
        skipped, limit = self.skipped, self.parts.runtime.roll_backs
        # A checkpoint of the very step before them would be what is there already.
        step = self._load(before=skipped.streak[0]["step"] - 1) if skipped.roll_backs < limit else None
        if step is None:
            raise RunError(
                f"{skipped}. {skipped.hint(self.record.precision)} Their images are in {self.folder.skipped}, "
                f"checkpoints in {self.folder.checkpoints}; --resume --runtime.roll_backs {skipped.roll_backs + 1} "
                "goes on from one that is older than these steps, without these images"
            )
        display.say(f"{skipped}; going on from the networks of step {step}, without these images")
        skipped.roll_back(self.clock.step + 1, step)

    def _step(self, batch: Batch) -> StepOutput:
        plan, clock = self.parts.optimization, self.clock
        seed_step(self.parts.seed, clock.step, rank())
        set_rates(self.optimizer, plan.learning_rate(clock), value_at(plan.weight_decay, clock))
        return train_step(
            self.model,
            self.make_views(batch, clock.epoch),
            self.optimizer,
            clock,
            clip=None if plan.clip_grad_norm is None else Clip(plan.clip_grad_norm, plan.clip_per),
            frozen=[part for part, duration in plan.freezes.items() if clock.step < duration.steps(clock)],
            accumulation=self.parts.runtime.accumulation,
            executor=self.executor,
        )

    def make_views(self, batch: Batch, epoch: int) -> Views:
        """Return the views of a batch on the run's device."""
        prepared = [tensor.to(self.device, non_blocking=True) for tensor in batch.prepared]
        return self.parts.views.make(prepared, batch.keys, epoch, self.parts.seed)

    def batches(self) -> StepBatches:
        """Return this process's batch of each step."""
        return StepBatches(
            self.parts.data.train,
            self.parts.views,
            self.clock,
            self.parts.optimization.batch_size,
            self.parts.seed,
            rank(),
            world_size(),
        )

    def _batches(self) -> Generator[tuple[int, Batch], None, None]:
        return load_batches(self.batches(), self.clock.step, self.num_workers, pin_memory=self.device.type == "cuda")

    def _row(self, output: StepOutput, stopwatch: Stopwatch) -> dict[str, float]:
        """Return the row of the step just taken; reading it is the loop's only wait for the device."""
        method, plan, clock = self.parts.method, self.parts.optimization, self.clock
        values = {
            "step": clock.step + 1,
            "epoch": (clock.step + 1) / clock.steps_per_epoch,
            "loss": mean_over_processes(output.loss),
            "skipped_steps": self.skipped.count,
            "lr": plan.learning_rate(clock),
            "weight_decay": value_at(plan.weight_decay, clock),
            **method.teacher.metrics(clock),
            **(method.collapse.metrics(clock) if method.collapse is not None else {}),
            **diagnose(output, method.loss),
        }
        return as_numbers(values) | stopwatch.read(clock.step + 1, plan.batch_size)

    def _is_logged(self) -> bool:
        """Whether the step just taken gets a row: every so many, the first and the last."""
        done = self.clock.step + 1
        return done in (1, self.clock.total_steps) or done % self.parts.runtime.log_every == 0

    def _at_cadence(self, display: Display) -> None:
        """Save and evaluate between steps where it is time."""
        if self._falls_on(self.parts.runtime.checkpoint_every):
            self.skipped.read()
            if not self.interrupted and self._has_moved():
                self.save()
        self._evaluate_at_cadence(display)

    def _has_moved(self) -> bool:
        """Whether there is anything new to save; a roll-back needs what was saved before a streak."""
        streak = self.skipped.streak
        return not streak or self.saved < streak[0]["step"] - 1

    def _evaluate_at_cadence(self, display: Display) -> None:
        """Evaluate where it is time; an interrupted run does so when it goes on."""
        every = self.parts.evaluation.every
        if not self.interrupted and every is not None and self._falls_on(every):
            for row in self.evaluate():
                display.say(_one_line(row, self.clock))

    def _falls_on(self, every: str) -> bool:
        """Whether a cadence falls between the last step and the next; the end is `_finish`'s."""
        done = self.clock.step
        return done < self.clock.total_steps and done % max(1, Duration.parse(every).steps(self.clock)) == 0

    def _finish(self) -> None:
        """Leave a folder that can be resumed, evaluated and exported."""
        self.skipped.read()
        self.save()
        if not self.interrupted:
            self.evaluate()
        if self.unsaved or self.measurements.waiting:
            self.save()
        if self.unsaved:
            raise RunError(
                f"step {self.clock.step} could not be saved: {self.unsaved}. What was saved before it is in "
                f"{self.folder.checkpoints}; --resume goes on from there"
            )

    def save(self) -> None:
        """Write a checkpoint and both backbones, or say why that cannot be.

        A run that has no room to save goes on: stopping would lose for certain what it learned since the last
        checkpoint, and room may be made before the next one. Rows come first, so that no checkpoint is ahead of them.
        """
        if not self.is_main:
            return
        progress = Progress(self.clock.step, self.record.identity)
        keep = self.parts.runtime.keep_checkpoints + bool(self.skipped.streak)
        try:
            for rows in (self.rows, self.skipped.rows, self.measurements):
                rows.sync()
            path = save_checkpoint(self.folder.checkpoints, self.model, self.optimizer, progress, keep, self.executor)
            self.folder.save_backbones({name: branch.backbone for name, branch in self.branches().items()})
        except OSError as error:
            self.unsaved = error
            logger.warning("step %d is not saved: %s. The checkpoints before it stay", self.clock.step, error)
        else:
            self.unsaved, self.saved = None, self.clock.step
            self._tell("on_checkpoint", path)

    def branches(self) -> dict[str, Branch]:
        """Return both networks by name."""
        return {"teacher": self.model.teacher, "student": self.model.student}

    def evaluate(self) -> Sequence[Mapping[str, Any]]:
        """Run the recipe's evaluators on its networks and add the rows to results.json."""
        rows: list[Mapping[str, Any]] = []
        branches = self.branches()
        for name in self.parts.evaluation.networks:
            rows += self.measurements.measure(branches[name].backbone, name, self.clock.step)
        wait_for_all()
        if rows:
            self._tell("on_evaluate_end", rows)
        return rows


def _one_line(row: Mapping[str, Any], clock: Clock) -> str:
    numbers = " · ".join(f"{name} {value:.1f}" for name, value in list(row["metrics"].items())[:4])
    return f"epoch {clock.step / clock.steps_per_epoch:g} · {row['network']} · {numbers}"
