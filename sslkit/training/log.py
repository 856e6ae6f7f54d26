"""The rows of metrics.jsonl, and results.json."""

import json
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor


class MetricsFile:
    """One JSON row a logged step, the run's source of truth.

    Args:
        path: the file; rows are appended.
        after: rows of later steps, left by a crash after the checkpoint resumed from, are dropped.
        writes: whether this process is the one that writes.
    """

    def __init__(self, path: Path, after: int = 0, writes: bool = True) -> None:
        self.path, self.writes = path, writes
        if writes and path.exists():
            kept = [line for line in path.read_text().splitlines() if _step_of(line) <= after]
            write_text(path, "".join(f"{line}\n" for line in kept))

    def write(self, row: Mapping[str, float]) -> None:
        """Append a row and hand it to the system; JSON knows no NaN, so what is not finite becomes null."""
        if not self.writes:
            return
        finite = {name: value if math.isfinite(value) else None for name, value in row.items()}
        with self.path.open("a") as file:
            file.write(json.dumps(finite) + "\n")


def _step_of(line: str) -> float:
    """Return a row's step; a row cut short by a crash counts as later than any."""
    try:
        return float(json.loads(line)["step"])
    except (ValueError, KeyError, TypeError):
        return float("inf")


def read_metrics(path: Path) -> list[dict[str, float]]:
    """Return the rows of a metrics.jsonl, none where there is no file."""
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def as_numbers(values: Mapping[str, float | Tensor]) -> dict[str, float]:
    """Return plain numbers; each tensor read here is a wait for the device."""
    return {name: float(value) for name, value in values.items()}


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


def write_text(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    temporary = path.with_name(f".{path.name}.tmp")
    with temporary.open("w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
