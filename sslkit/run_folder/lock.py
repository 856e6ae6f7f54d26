"""Lock a run folder, so that one process at a time writes it."""

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sslkit.errors import SSLKitError
from sslkit.run_folder.atomic_write import writable

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

logger = logging.getLogger("sslkit.training")

LOCK = ".lock"
"""Names the last process that held the lock; that the file exists means nothing."""

_held: set[int] = set()


def _let_go() -> None:
    """Close what a forked worker inherits: as long as it lived, a killed run would seem to be running."""
    while _held:
        os.close(_held.pop())


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_let_go)


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """Lock a folder, which is created if need be; the system releases the lock however the process ends.

    Where the file system has no locks, a warning says so.

    Raises:
        SSLKitError: another process has locked it, or it cannot be written.
    """
    with writable(folder):
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    _held.add(descriptor)
    try:
        with writable(folder):
            _take(descriptor, folder)
        yield
    finally:
        _held.discard(descriptor)
        os.close(descriptor)


def _take(descriptor: int, folder: Path) -> None:
    try:
        if fcntl is None:
            raise OSError("this system has no flock")
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.read(descriptor, 1000).decode(errors="replace") or "another process"
        raise SSLKitError(
            f"--run-dir: {folder} is in use by {holder}; stop it first, or choose another folder"
        ) from None
    except OSError as error:
        logger.warning("%s cannot be locked (%s): make sure that one process alone writes it", folder, error)
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)
