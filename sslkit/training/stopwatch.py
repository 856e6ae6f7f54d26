"""How fast a run goes, and how much of that it waits for data."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Images a second and the share of time spent waiting for data, between two readings.

    Args:
        step: the step at which it starts.
    """

    def __init__(self, step: int) -> None:
        self._step = step
        self._start = time.perf_counter()
        self._waited = 0.0

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Count the time in this block as waiting for data."""
        start = time.perf_counter()
        yield
        self._waited += time.perf_counter() - start

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time in this block out (an evaluation, a checkpoint)."""
        start = time.perf_counter()
        yield
        self._start += time.perf_counter() - start

    def read(self, step: int, batch_size: int) -> dict[str, float]:
        """Return both numbers since the last reading and start again."""
        now = time.perf_counter()
        elapsed = max(now - self._start, 1e-9)
        row = {
            "images_per_second": (step - self._step) * batch_size / elapsed,
            "data_wait_fraction": min(1.0, self._waited / elapsed),
        }
        self._start, self._waited, self._step = now, 0.0, step
        return row
