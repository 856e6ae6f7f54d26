"""Write and read results.json, a list of evaluation rows."""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

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
    """Return the rows of a results.json, none where there is no file."""
    return json.loads(path.read_text()) if path.exists() else []
