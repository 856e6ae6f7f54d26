"""How a run in progress looks: a live line in a terminal, plain lines elsewhere."""

import math
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from sslkit.clock import Clock
from sslkit.progress import SECONDS_BETWEEN_LINES, WorkDisplay

MOST_METRICS = 2
"""Metrics of a row of results that fit into a line."""


class ProgressDisplay:
    """The progress of one run.

    Args:
        clock: the run's length.
        first_step: where it starts.
        display: where to show it.
    """

    def __init__(self, clock: Clock, first_step: int, display: WorkDisplay) -> None:
        self.display = display
        self.last_line = -math.inf
        self._shown = display.work(f"epoch {_epoch(clock)}", clock.total_steps, first_step)

    def __enter__(self) -> "ProgressDisplay":
        self.work = self._shown.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._shown.__exit__(kind, error, trace)

    def step(self, clock: Clock) -> None:
        """Advance to the end of this step."""
        self.work.show(name=f"epoch {_epoch(clock)}", completed=clock.step + 1)

    def show(self, clock: Clock, row: Mapping[str, float]) -> None:
        """Show a row of metrics."""
        numbers = (
            f"loss {row['loss']:.3f} · {row['images_per_second']:,.0f} images/s · "
            f"data wait {row['data_wait_fraction']:.0%}"
        )
        self.work.show(numbers=numbers)
        if not self.display.is_live:
            self._print_line(clock, numbers)

    def _print_line(self, clock: Clock, numbers: str) -> None:
        done, now = clock.step + 1, time.monotonic()
        if now - self.last_line >= SECONDS_BETWEEN_LINES or done == clock.total_steps:
            self.last_line = now
            where = f"epoch {_epoch(clock)} · step {done}/{clock.total_steps}"
            self.say(f"{where} · {numbers} · {self.work.left(done)} left")

    def say_result(self, clock: Clock, row: Mapping[str, Any]) -> None:
        """Print a row of results."""
        numbers = " · ".join(f"{name} {value:.1f}" for name, value in list(row["metrics"].items())[:MOST_METRICS])
        self.say(f"epoch {clock.step / clock.steps_per_epoch:g} · {row['network']} · {numbers}")

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.display.say(text)


def _epoch(clock: Clock) -> str:
    return f"{min(clock.epoch + 1, clock.total_epochs)}/{clock.total_epochs}"
