"""How a run in progress looks: a live line in a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Mapping
from datetime import timedelta
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from sslkit.clock import Clock

SECONDS_BETWEEN_LINES = 10.0
"""Where there is no terminal."""


class ProgressDisplay:
    """The progress of one run.

    Args:
        clock: the run's length.
        first_step: where it starts.
        console: where to write.
    """

    def __init__(self, clock: Clock, first_step: int, console: Console) -> None:
        self.clock = clock
        self.console = console
        self.first_step = first_step
        self.start = time.monotonic()
        self.last_line = -math.inf
        self.progress = Progress(
            TextColumn("[bold]epoch {task.fields[epoch]}"),
            BarColumn(bar_width=24 if console.width >= 96 else 8),
            TextColumn("{task.percentage:>3.0f} %"),
            TextColumn("{task.fields[numbers]}", style="cyan"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self.task = self.progress.add_task("", total=clock.total_steps, completed=first_step, epoch="", numbers="")

    def __enter__(self) -> "ProgressDisplay":
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:  # elsewhere rich before 14.3 would end with an empty line
            self.progress.stop()

    def step(self, clock: Clock) -> None:
        """Advance to the end of this step."""
        self.progress.update(self.task, completed=clock.step + 1, epoch=_epoch(clock))

    def show(self, clock: Clock, row: Mapping[str, float]) -> None:
        """Show a row of metrics."""
        numbers = (
            f"loss {row['loss']:.3f} · {row['images_per_second']:,.0f} images/s · "
            f"data wait {row['data_wait_fraction']:.0%}"
        )
        self.progress.update(self.task, numbers=numbers)
        if not self.console.is_terminal:
            self._print_line(clock, numbers)

    def _print_line(self, clock: Clock, numbers: str) -> None:
        done, now = clock.step + 1, time.monotonic()
        if now - self.last_line >= SECONDS_BETWEEN_LINES or done == clock.total_steps:
            self.last_line = now
            left = (now - self.start) / max(1, done - self.first_step) * (clock.total_steps - done)
            where = f"epoch {_epoch(clock)} · step {done}/{clock.total_steps}"
            self.say(f"{where} · {numbers} · {timedelta(seconds=round(left))} left")

    def say_result(self, clock: Clock, row: Mapping[str, Any]) -> None:
        """Print a row of results."""
        numbers = " · ".join(f"{name} {value:.1f}" for name, value in list(row["metrics"].items())[:4])
        self.say(f"epoch {clock.step / clock.steps_per_epoch:g} · {row['network']} · {numbers}")

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)


def _epoch(clock: Clock) -> str:
    return f"{clock.epoch + 1}/{clock.total_epochs}"
