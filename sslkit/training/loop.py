"""A run: steps, rows, evaluations, checkpoints, and a folder that is usable whenever it stops."""

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
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
from sslkit.data.substitution import UnreadableLog
from sslkit.distributed import from_main, max_over_processes, mean_over_processes, rank, wait_for_all, world_size
from sslkit.schedules import value_at
from sslkit.sections import Parts
from sslkit.student_teacher import Branch
from sslkit.training.accelerated import AccelerateExecutor
from sslkit.training.checkpoint import Progress, load_newest, save_checkpoint
from sslkit.training.device import choose_device, choose_precision, seed_step
from sslkit.training.diagnostics import check_finite, diagnose
from sslkit.training.display import Display
from sslkit.training.interruption import interruptible
from sslkit.training.loader import Batch, StepBatches, default_workers, load_batches
from sslkit.training.log import (
    MetricsFile,
    as_numbers,
    drop_results,
    read_metrics,
    read_results,
)
from sslkit.training.measurements import Measurements
from sslkit.training.optimizers import parameter_groups, set_rates
from sslkit.training.run_folder import Record, RunFolder
from sslkit.training.setup import build_model, check_step, data_statistics, start_clock
from sslkit.training.showcase import Showcase
from sslkit.training.step import Clip, StepOutput, train_step
from sslkit.training.stopwatch import Stopwatch
from sslkit.types import Views

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
    ) -> None:
        self.parts = parts
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
        self.model = build_model(parts.method, teacher).to(self.device).to(memory_format=torch.channels_last)
        if parts.runtime.compile:
            for branch in self.branches().values():
                branch.backbone.compile()
        self.executor = AccelerateExecutor(self.accelerator, self.model.student)
        method = parts.optimization.optimizer
        self.optimizer = method.build(
            [{**group, "lr": 0.0} for group in parameter_groups(self.model.student, method.decays_vectors)]
        )
        self.statistics = data_statistics(parts)
        workers = parts.runtime.num_workers
        self.num_workers = default_workers(parts.data.train, world_size(), parts.views) if workers is None else workers
        self.measurements = Measurements(
            parts.evaluation, parts.data, self.statistics, self.device, self.folder.results, self.num_workers
        )
        self.unreadable = UnreadableLog(len(parts.data.train), parts.runtime.unreadable_limit)
        self.interrupted = False
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
        """Train to the end, or to an interruption, from the newest checkpoint if there is one and ``resume``."""
        if self.is_main:
            self.folder.start(self.record, self.statistics, resume)
        else:
            self.console.quiet = True
        wait_for_all()
        first = load_newest(self.folder.checkpoints, self.model, self.optimizer, self.record.identity) or 0
        self.clock = self.clock.at(first)
        # What followed the checkpoint is done again: its evaluation, or the baselines before the first step.
        if self.is_main:
            drop_results(self.folder.results, since=first)
        metrics = MetricsFile(self.folder.metrics, after=first, writes=self.is_main)
        for callback in self.parts.runtime.callbacks:
            callback.on_run_start(self)
        if first == 0:
            self.measurements.measure_baselines(self.model.student.backbone)
            wait_for_all()
        with Display(self.clock, first, self.console) as display, interruptible(self.interrupt):
            self._train(display, metrics)
            self._finish()
        for callback in self.parts.runtime.callbacks:
            callback.on_run_end(self)

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

    def _train(self, display: Display, metrics: MetricsFile) -> None:
        if self.clock.step:
            self._evaluate_at_cadence(display)
        stopwatch = Stopwatch(self.clock.step)
        with closing(self._batches()) as steps:
            while self.clock.step < self.clock.total_steps and not self._is_asked_to_stop():
                with stopwatch.waiting():
                    _, batch = next(steps)
                self.unreadable.record(len(batch.keys), batch.unreadable)
                output = self._step(batch)
                display.step(self.clock)
                if self._is_logged():
                    self._log(self._row(output, stopwatch), display, metrics)
                self.clock = self.clock.at(self.clock.step + 1)
                with stopwatch.paused():
                    self._at_cadence(display)

    def _is_asked_to_stop(self) -> bool:
        """Whether any process was interrupted. Several agree where rows are written, to wait for nothing else."""
        if world_size() > 1 and (self.clock.step == 0 or self.clock.step % self.parts.runtime.log_every == 0):
            asked = torch.tensor(float(self.interrupted), device=self.device)
            self.interrupted = bool(max_over_processes(asked))
            return self.interrupted
        return self.interrupted and world_size() == 1

    def _log(self, row: Mapping[str, float], display: Display, metrics: MetricsFile) -> None:
        metrics.write(row)
        display.show(self.clock, row)
        check_finite(row, self.folder.checkpoints)
        for callback in self.parts.runtime.callbacks:
            callback.on_step_end(self, row)

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
            frozen=[
                part for part, duration in plan.freeze.items() if clock.step < Duration.parse(duration).steps(clock)
            ],
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
        if not self.interrupted and self._falls_on(self.parts.runtime.checkpoint_every):
            self.save()
        self._evaluate_at_cadence(display)

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
        self.save()
        if not self.interrupted:
            self.evaluate()

    def save(self) -> None:
        """Write a checkpoint and both backbones."""
        if not self.is_main:
            return
        progress = Progress(self.clock.step, self.record.identity)
        keep = self.parts.runtime.keep_checkpoints
        path = save_checkpoint(self.folder.checkpoints, self.model, self.optimizer, progress, keep)
        self.folder.save_backbones({name: branch.backbone for name, branch in self.branches().items()})
        for callback in self.parts.runtime.callbacks:
            callback.on_checkpoint(self, path)

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
        for callback in self.parts.runtime.callbacks if rows else ():
            callback.on_evaluate_end(self, rows)
        return rows


def _one_line(row: Mapping[str, Any], clock: Clock) -> str:
    numbers = " · ".join(f"{name} {value:.1f}" for name, value in list(row["metrics"].items())[:4])
    return f"epoch {clock.step / clock.steps_per_epoch:g} · {row['network']} · {numbers}"
