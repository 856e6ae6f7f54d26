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
    """Write a text file whole or not at all."""
    write_bytes(path, text.encode())


def write_bytes(path: Path, content: bytes) -> None:
    """Write a file whole or not at all; a link in its place is replaced, never followed."""
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.unlink(missing_ok=True)
    # A new file: the name may have been given to a link in a folder from elsewhere.
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def refuse_links(folder: Path) -> None:
    """Raise an error if a folder holds links, through which a run would write and delete outside of it.

    Raises:
        SSLKitError: naming a link and its target.
    """
    for path in sorted(folder.glob("*")):
        if path.is_symlink():
            raise SSLKitError(
                f"--run-dir: {path} is a link to {path.readlink()}, and a run writes inside its own folder alone; "
                "replace the link by what it points to, or choose another folder"
            )


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
