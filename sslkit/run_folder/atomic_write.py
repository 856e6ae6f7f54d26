"""Writing that survives a crash, a full disk and a folder that belongs to somebody else."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sslkit.errors import SSLKitError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""What the system says where there is no room left: on the disk, or of the user's share of it."""


def sync(path: Path) -> None:
    """Have a file, or the names in a folder, on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
    sync(path.parent)


@contextmanager
def writable(folder: Path) -> Iterator[None]:
    """Say in one message that a run folder cannot be written.

    Raises:
        SSLKitError: the block could not write.
    """
    try:
        yield
    except OSError as error:
        raise SSLKitError(f"--run-dir: {folder} cannot be written: {error}") from error
