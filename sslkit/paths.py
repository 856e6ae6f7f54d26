"""Paths as users write them."""

import os
from pathlib import Path


def local_path(text: str | Path) -> Path:
    """Return a path in which ``~`` and ``~USER`` are home folders; that of an unknown user stays as it is written.

    `Path.expanduser` raises an error for an unknown user, and a name such as ``~x`` may be that of a file.
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111
