"""Scripts in processes of their own, which can be stopped with everything that they have started."""

import multiprocessing
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

PRELOADED = ["torch", "sslkit.launch"]
"""Imported once in the process that others are forked from; to import them takes each new interpreter seconds."""

GRACE = 3.0
"""Seconds between SIGTERM and SIGKILL."""


@dataclass
class Process:
    """A started script.

    Args:
        pid: of the process.
        code: returns its exit code, None while it runs.
        log: the file that holds what it prints.
    """

    pid: int
    code: Callable[[], int | None]
    log: Path
    _read: int = field(default=0, init=False)

    def wait(self, limit: float) -> bool:
        """Print what it prints, and return whether it ended within so many seconds."""
        end = time.monotonic() + limit
        while True:
            ended = self.code() is not None
            self._echo()
            if ended or time.monotonic() >= end:
                return ended
            time.sleep(0.05)

    def stop(self) -> None:
        """End it and all that it started; torchrun gives its processes a session, so that there is no common group."""
        pids = [self.pid, *descendants(self.pid)]
        for number in (signal.SIGTERM, signal.SIGKILL):
            for pid in pids:
                with suppress(ProcessLookupError):
                    os.kill(pid, number)
            self.wait(GRACE)

    def _echo(self) -> None:
        with self.log.open(errors="replace") as file:
            file.seek(self._read)
            print(file.read(), end="", flush=True)
            self._read = file.tell()


def descendants(pid: int) -> list[int]:
    """Return the processes that a process has started, and those that these have started; none but on Linux."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(stat.parent.name))
    found = [pid]
    for each in found:
        found += children.get(each, [])
    return found[1:]


def start_fresh(script: Path, words: Sequence[str], log: Path) -> Process:
    """Start a script in a new interpreter."""
    with log.open("w") as file:
        process = subprocess.Popen([sys.executable, script, *words], stdout=file, stderr=subprocess.STDOUT)
    return Process(process.pid, process.poll, log)


def start_forked(script: Path, words: Sequence[str], log: Path) -> Process:
    """Start a script in a process forked from one that has imported `PRELOADED`.

    Raises:
        OSError, EOFError: an import has ended that process.
    """
    # An import that asks for devices must not start the driver, which does not work after a fork.
    os.environ["PYTORCH_NVML_BASED_CUDA_CHECK"] = "1"
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    log.write_text("")
    process = context.Process(target=_become, args=(str(script), list(words), str(log)))
    process.start()
    return Process(process.pid, lambda: process.exitcode, log)


def _become(script: str, words: list[str], log: str) -> None:
    """Run a script as if Python had been started with it."""
    out = os.open(log, os.O_WRONLY | os.O_APPEND)
    for number in (1, 2):
        os.dup2(out, number)
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(line_buffering=True)
    sys.argv = [script, *words]
    sys.path.insert(0, str(Path(script).parent))
    runpy.run_path(script, run_name="__main__")
