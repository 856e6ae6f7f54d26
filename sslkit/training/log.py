"""The rows of metrics.jsonl, and results.json."""

import errno
import json
import logging
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from functools import reduce
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslkit.training.disk import sync, write_text

logger = logging.getLogger("sslkit.training")


class StepRows:
    """A file of JSON rows in the order of steps; metrics.jsonl is a run's source of truth.

    A row for which the disk has no room waits in memory and is written with the next one.

    Args:
        path: the file; rows are appended.
        after: rows of later steps, left by a crash after the checkpoint resumed from, are dropped.
        writes: whether this process is the one that writes.
    """

    def __init__(self, path: Path, after: int = 0, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        self._waiting = ""
        if writes and path.exists():
            write_text(path, "".join(f"{line}\n" for line in lines_until(path, after)))

    def write(self, row: Mapping[str, Any]) -> None:
        """Append a row and hand it to the system; JSON knows no NaN, so what is not finite becomes null."""
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
        """Have every row on the disk.

        Raises:
            OSError: rows still wait.
        """
        if self._waiting:
            self._append()
        if self.path.exists():
            sync(self.path)

    def _append(self) -> None:
        data = self._waiting.encode()
        with self.path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if file.write(data) < len(data):
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self._waiting = ""


def lines_until(path: Path, step: float = math.inf) -> list[str]:
    """Return a file's rows of this step and earlier ones, without what a crash cut short."""
    return [line for line in path.read_text().splitlines() if _step_of(line) <= step] if path.exists() else []


def _finite_or_none(value: Any) -> Any:
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _step_of(line: str) -> float:
    """Return a row's step; that of a row cut short by a crash compares with nothing."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return math.nan


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the rows of a metrics.jsonl, none where there is no file."""
    return [json.loads(line) for line in lines_until(path)]


def as_numbers(values: Mapping[str, float | Tensor]) -> dict[str, float]:
    """Return plain numbers; all tensors of a device are read at once, which is one wait for it."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    read: dict[str, float] = {}
    for device in {tensor.device for tensor in tensors.values()}:
        there = {name: tensor for name, tensor in tensors.items() if tensor.device == device}
        widest = reduce(torch.promote_types, (tensor.dtype for tensor in there.values()))
        numbers = torch.stack([tensor.reshape(()).to(widest) for tensor in there.values()]).cpu().tolist()
        read |= {name: float(number) for name, number in zip(there, numbers)}
    return {name: read[name] if name in read else float(value) for name, value in values.items()}


def append_results(path: Path, rows: Iterable[Mapping[str, Any]]) -> None:
    """Add rows to results.json."""
    write_text(path, json.dumps([*read_results(path), *rows], indent=1) + "\n")


def drop_results(path: Path, since: int) -> None:
    """Remove the rows of this step and later ones from results.json."""
    rows = read_results(path)
    kept = [row for row in rows if row["step"] is None or row["step"] < since]
    if len(kept) < len(rows):
        write_text(path, json.dumps(kept, indent=1) + "\n")


def read_results(path: Path) -> Sequence[Mapping[str, Any]]:
    """Return the rows of a results.json, none where there is no file."""
    return json.loads(path.read_text()) if path.exists() else []
