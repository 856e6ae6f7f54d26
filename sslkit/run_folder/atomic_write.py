"""Write files whole or not at all, whatever crashes or is full."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sslkit.errors import SSLKitError

FULL = (errno.ENOSPC, errno.EDQUOT)
"""Error numbers of a full disk, and of a user's full quota."""


def sync(path: Path) -> None:
    """Flush a file, or the names in a folder, to the disk."""
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
    """Raise an OSError of the block as one message that names the run folder.

    Raises:
        SSLKitError: the block could not write.
    """
    try:
        yield
    except OSError as error:
        raise SSLKitError(f"--run-dir: {folder} cannot be written: {error}") from error
