"""Processes that load data: they end with the process that started them, and one that is lost is one message."""

import ctypes
import multiprocessing
import os
import signal
import sys
from collections.abc import Generator
from contextlib import suppress
from multiprocessing.sharedctypes import RawArray, RawValue
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any

from torch.utils.data import DataLoader

from sslkit.errors import RunError

CHECK_EVERY = 5
"""Seconds without data after which the processes are looked at."""

PR_SET_PDEATHSIG = 1
"""Option of Linux's prctl: the signal that a process gets when the one that started it ends."""


class LostWorker(RunError):
    """A process that loads data was killed or stopped from outside."""


class Workers:
    """The processes that load data for a `DataLoader`, which is made with `options`.

    They outlive SIGINT and SIGTERM, which terminals and schedulers send to every process: the training process handles
    its own signal and ends its workers itself.

    Args:
        count: how many; 0 loads in this process.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        # Shared with the workers, and without locks, which a worker that ends could keep.
        self._stopped: Any = RawValue(ctypes.c_bool, False)
        self._pids: Any = RawArray(ctypes.c_int, count)

    @property
    def options(self) -> dict[str, Any]:
        """The arguments of the `DataLoader`."""
        if not self.count:
            return {"num_workers": 0}
        return {"num_workers": self.count, "timeout": CHECK_EVERY, "worker_init_fn": self.begin}

    def begin(self, worker: int) -> None:
        """Prepare the signals of a worker, in its process; the ``worker_init_fn`` of torch."""

        def on_terminate(number: int, frame: Any) -> None:
            # torch sends it to a worker that does not end by itself.
            if self.is_stopped():
                os._exit(0)

        self._pids[worker] = os.getpid()
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, on_terminate)
        end_with_parent()

    def stop(self) -> None:
        """Have every worker drop what it reads."""
        self._stopped.value = True
        # A stopped process takes no other signal, and torch and Python wait for it.
        for pid in self._in_state("T"):
            os.kill(pid, signal.SIGKILL)

    def is_stopped(self) -> bool:
        """Return whether nothing more is to be read."""
        return bool(self._stopped.value)

    def load(self, loader: "DataLoader[Any]") -> Generator[Any, None, None]:
        """Yield what a loader yields in one pass.

        Raises:
            LostWorker: a worker was killed, or stopped, or cannot be started.
        """
        self._stopped.value = False
        self._pids[:] = [0] * self.count
        iterator = self._start(loader)
        was_stopped: set[int] = set()
        try:
            while True:
                try:
                    item = next(iterator)
                except StopIteration:
                    return
                except RuntimeError as error:
                    was_stopped = self._check(error, was_stopped)
                    continue
                yield item
        finally:
            self.stop()
            # The workers end with the iterator, which the traceback of an error would keep.
            del iterator

    def _start(self, loader: "DataLoader[Any]") -> Any:
        if not self.count:
            return iter(loader)
        # torch's handler raises an error wherever this process is when a worker dies, also in the middle of a step.
        handler = signal.getsignal(signal.SIGCHLD) if hasattr(signal, "SIGCHLD") else None
        try:
            return iter(loader)
        except OSError as error:
            raise LostWorker(
                f"{self.count} processes that load images cannot be started: {error}. Set runtime.num_workers lower"
            ) from error
        finally:
            if handler is not None and current_thread() is main_thread():
                signal.signal(signal.SIGCHLD, handler)

    def _check(self, error: RuntimeError, was_stopped: set[int]) -> set[int]:
        """Return the workers that are stopped now; raise the error unless torch has only waited a while.

        Args:
            error: of torch.
            was_stopped: those that were stopped at the last check; job control may stop them for a moment.
        """
        if self.count and "exited unexpectedly" in str(error):
            raise LostWorker(
                "a process that loads images was killed, as happens where memory runs out; fewer of them "
                "(runtime.num_workers) take less"
            ) from error
        if not self.count or "timed out" not in str(error):
            raise error
        stopped = self._in_state("T")
        if lost := sorted(stopped & was_stopped):
            raise LostWorker(f"process {lost[0]}, which loads images, is stopped (SIGSTOP), so no more images come")
        return stopped

    def _in_state(self, state: str) -> set[int]:
        """Return the workers in a state of Linux's /proc; none elsewhere."""
        return {pid for pid in self._pids if pid and _state_and_parent(pid) == (state, str(os.getpid()))}


def end_with_parent() -> None:
    """Have this process end when the one that started it ends, also where that has happened already; on Linux."""
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    parent = multiprocessing.parent_process()
    # A fork server, which ends with the parent too, stands between the two.
    if parent is not None and multiprocessing.get_start_method() != "forkserver" and os.getppid() != parent.pid:
        os._exit(0)


def _state_and_parent(pid: int) -> tuple[str, ...]:
    """Return the letter of a process's state and the number of its parent, or nothing where there is no such process.

    The number of a process that has ended may be another's by now, which has another parent.
    """
    with suppress(OSError):
        # The name of the program, in parentheses, may hold anything.
        return tuple(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2])
    return ()
