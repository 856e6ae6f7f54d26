"""Write and read metrics.jsonl, and other files of rows in the order of steps."""

import errno
import json
import logging
import math
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sslkit.errors import DataError
from sslkit.run_folder.atomic_write import sync, write_text

logger = logging.getLogger("sslkit.training")


class StepRows:
    """A file of JSON rows in the order of steps; metrics.jsonl is a run's source of truth.

    A row for which the disk has no room stays in memory and is written with the next one.

    Args:
        path: the file; rows are appended.
        after: rows of later steps, which a crash left after the checkpoint that is resumed from, are dropped.
        writes: whether this process is the one that writes.
    """

    def __init__(self, path: Path, after: int = 0, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self._waiting = ""
        if writes and path.exists():
            write_text(path, "".join(f"{line}\n" for line in lines_until(path, after)))

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row to the file; JSON has no NaN, so what is not finite becomes null."""
        if not self.writes:
            return
        is_first = not self._waiting
        finite = {name: _finite_or_none(value) for name, value in row.items()}
        self._waiting += json.dumps(finite) + "\n"
        try:
            self._append()
        except OSError as error:
            if is_first:
                logger.warning("%s cannot be written (%s); its rows wait", self.path, error)

    def sync(self) -> None:
        """Write every row to the disk.

        Raises:
            OSError: there is no room for some rows yet.
        """
        if self._waiting:
            self._append()
        if self.path.exists():
            sync(self.path)

    def _append(self) -> None:
        data = self._waiting.encode()
        with self.path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            # On a full disk a write may succeed in part: half a row must not stay.
            if file.write(data) < len(data):
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._waiting = ""


def lines_until(path: Path, step: float = math.inf) -> list[str]:
    """Return a file's rows of this step and earlier ones, without what a crash cut short."""
    if not path.exists():
        return []
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read: {error}") from error
    return [line for line in lines if _step_of(line) <= step]


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _step_of(line: str) -> float:
    """Return a row's step; NaN, which compares with nothing, for a row cut short by a crash."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.nan


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the rows of a metrics.jsonl, none where there is no file.

    Raises:
        DataError: the file is not text.
    """
    return [json.loads(line) for line in lines_until(path)]
