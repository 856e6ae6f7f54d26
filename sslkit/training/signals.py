"""The first Ctrl-C asks a run to stop, the second one stops it."""

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any, TypeVar

import torch

from sslkit.distributed import max_over_processes, world_size

Result = TypeVar("Result")

ECHO = 2.0
"""Seconds within which a signal comes twice: torchrun hands on what the terminal has sent to everybody."""


class Interruption:
    """Whether a run is asked to stop: by a signal, a callback or another thread.

    Args:
        answer: tells whoever sends a signal that it has arrived.
    """

    def __init__(self, answer: Callable[[], None]) -> None:
        self.asked = False
        self._answer, self._leaves = answer, False

    @contextmanager
    def by_signals(self) -> Iterator[None]:
        """Take the first SIGINT or SIGTERM inside the block as asking; a later one is handled as before the block.

        Python gives signals to the main thread alone; in another thread nothing is changed.
        """
        owner, first = os.getpid(), 0.0

        def request(number: int, frame: Any) -> None:
            nonlocal first
            if os.getpid() != owner:
                # A terminal and a scheduler signal forked processes as well.
                signal.signal(number, before[signal.Signals(number)])
            elif not first:
                first = time.monotonic()
                self._heed()
            elif time.monotonic() - first >= ECHO:
                signal.signal(number, before[signal.Signals(number)])
                signal.raise_signal(number)

        numbers = (signal.SIGINT, signal.SIGTERM) if current_thread() is main_thread() else ()
        before = {number: signal.getsignal(number) for number in numbers}
        for number in before:
            signal.signal(number, request)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def attempt(self, work: Callable[[], Result]) -> Result | None:
        """Return what ``work`` returns, or None where the run is asked to stop.

        Alone, a signal leaves the work at once; several processes leave it together where it calls ``meet``.
        """
        self._leaves = world_size() == 1
        try:
            return None if self._leaves and self.asked else work()
        except KeyboardInterrupt:
            if not self.asked:
                raise
            return None
        finally:
            self._leaves = False

    def agreed(self, device: torch.device) -> bool:
        """Return whether any process is asked to stop; every process waits here for all others."""
        if world_size() == 1:
            return self.asked
        answer = bool(max_over_processes(torch.tensor(float(self.asked), device=device)))
        # Who is asked while all wait here says so the next time.
        self.asked = self.asked or answer
        return answer

    def meet(self, device: torch.device) -> None:
        """Leave the work of ``attempt``, on every process, where any of them is asked to stop.

        Raises:
            KeyboardInterrupt: so it is.
        """
        if self.agreed(device):
            raise KeyboardInterrupt

    def _heed(self) -> None:
        self.asked = True
        self._answer()
        if self._leaves:
            raise KeyboardInterrupt
