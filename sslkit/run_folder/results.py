"""Write and read results.json, a list of evaluation rows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from sslkit.errors import DataError
from sslkit.run_folder.atomic_write import write_text

INIT_FROM = "init_from"
"""The name of the network with the weights that a run started from."""


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
    """Return the rows of a results.json, none where there is no file.

    Raises:
        DataError: it is damaged, or no list of rows.
    """
    if not path.exists():
        return []
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"{path} cannot be read: {error}. Without it, the run's evaluations are lost alone") from error
    if not isinstance(rows, list) or not all(_is_row(row) for row in rows):
        raise DataError(f"{path} is damaged: it is not a list of rows with step, network, protocol and metrics")
    return rows


def _is_row(row: Any) -> bool:
    """Whether a value has what readers of results.json rely on."""
    if not isinstance(row, dict) or "step" not in row or not isinstance(row.get("metrics", {}), dict):
        return False
    names = all(isinstance(row.get(name, ""), str) for name in ("network", "protocol"))
    numbers = all(isinstance(value, int | float) for value in row.get("metrics", {}).values())
    return names and numbers and isinstance(row["step"], int | None)
