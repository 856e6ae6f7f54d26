"""Index tables of images: parquet and arrow files, data sets saved to disk or on the Hugging Face Hub."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslkit.data.folder import SPLITS
from sslkit.data.keys import row_keys
from sslkit.data.table_files import Tables, is_image
from sslkit.data.walk import read_regular
from sslkit.errors import DataError, NoSuchSplit, UnreadableImage, did_you_mean

ROWS_LOOKED_AT = 10_000
"""Rows that decide whether a column may hold labels."""


class TableIndex:
    """The rows of one split of a table.

    Args:
        splits: the splits by name, as the ``datasets`` library gives them.
        origin: name of the table for error messages.
        folders: where files may lie whose paths the table holds; relative ones are relative to the first.
        split: name of the split, or one of the other names in `sslkit.data.folder.SPLITS`.
        image_column: the column of images; None is the first one.
        label_column: the column of labels; None is the first of class labels, or a column ``label`` of whole numbers or
            words.
        mask_column: the column of masks; None for no masks.

    Attributes:
        keys: (N,) int64, hashes of the split's name and the row.
        labels: (N,) int64, or None; a split with missing labels or labels of -1 (none, on the Hub) has None.
        class_names: names of the classes, or None.
        unlabelled: why there are no labels, or empty.
        sizes: number of rows of each split, of a table with two names under that of ``split``.

    Raises:
        DataError: there is no such split or column, or the column does not hold images or labels.
    """

    def __init__(
        self,
        splits: Tables,
        origin: str,
        folders: Sequence[Path],
        split: str,
        image_column: str | None = None,
        label_column: str | None = None,
        mask_column: str | None = None,
    ) -> None:
        self.origin = origin
        self.folders = [folder.absolute() for folder in folders]
        self.unlabelled = ""
        self.split = next((s for s in (split, SPLITS.get(split.lower(), split)) if s in splits), "")
        if not self.split:
            raise NoSuchSplit(origin, split, splits)
        table = splits[self.split]
        # A single table has two names, that of its split and ``train``.
        self.sizes = {name: len(t) for name, t in splits.items() if name == self.split or t is not table}
        self.image_column = image_column or self._find_images(table)
        self.label_column = label_column or _find_labels(table)
        self.mask_column = mask_column
        self.labels, self.class_names = self._labels(splits)
        self.keys = row_keys(self.split, len(table))
        columns = [column for column in (self.image_column, mask_column) if column]
        for column in columns:
            table = self._as_files(table, column)
        self.table = table.select_columns(columns)

    def files(self, row: int) -> list[tuple[bytes, str]]:
        """Return pairs, the content and the name of the image of a row and, with a mask column, of its mask.

        Raises:
            UnreadableImage: the row refers to a file that cannot be opened.
        """
        return [self._file(row, column, cell or {}) for column, cell in self.table[row].items()]

    def place_of(self, row: int) -> str:
        """Return the split and the number of a row."""
        return f"{self.split} row {row}"

    def _file(self, row: int, column: str, cell: Mapping[str, Any]) -> tuple[bytes, str]:
        # Tables from the Hub hold the bytes; a folder's, or one by Dataset.to_parquet, holds paths.
        path, data = cell.get("path"), cell.get("bytes")
        name = f"{self.origin} {self.place_of(row)} {column}" + (f" ({path})" if path else "")
        if data is not None or path is None:
            return data or b"", name
        for folder in self.folders:
            # Without following links: those are the user's, while a table may come from anywhere.
            relative = os.path.relpath(os.path.normpath(self.folders[0] / path), os.path.normpath(folder))
            if Path(relative).parts[0] != os.pardir:
                return read_regular(folder / relative, name), name
        raise UnreadableImage(name, f"lies outside of {self.folders[0]}, from where alone a table's files are read")

    def _find_images(self, table: Any) -> str:
        for column, feature in table.features.items():
            if is_image(feature):
                return str(column)
        raise DataError(f"{self.origin} has no column of images to be found: {_columns(table)}. Set image_column.")

    def _as_files(self, table: Any, column: str) -> Any:
        import datasets

        self._check(table, column)
        try:
            # Bytes alone: the library's decoding is slower, and returns as many channels as each file has.
            return table.cast_column(column, datasets.Image(decode=False))
        except Exception as error:  # the library's casts raise several kinds
            raise DataError(f"{self.origin}: column {column!r} holds no images: {_columns(table)}") from error

    def _labels(self, splits: Mapping[str, Any]) -> tuple[Tensor | None, list[str] | None]:
        if self.label_column is None:
            self.unlabelled = _why_unlabelled(splits[self.split])
            return None, None
        self._check(splits[self.split], self.label_column)
        feature = splits[self.split].features[self.label_column]
        if getattr(feature, "dtype", None) in ("string", "large_string"):
            return self._numbered(splits)
        values = _column(splits[self.split], self.label_column)
        if not all(value is None or isinstance(value, int) for value in values):
            raise DataError(f"{self.origin}: labels in {self.label_column!r} are whole numbers or words, not {feature}")
        if missing := sum(value is None or value < 0 for value in values):
            self._lack(missing)
            return None, None
        return torch.tensor(values, dtype=torch.int64), getattr(feature, "names", None)

    def _numbered(self, splits: Mapping[str, Any]) -> tuple[Tensor | None, list[str] | None]:
        """Number the words of all splits, so that a class has the same number in training and test."""
        words = {s: _column(t, self.label_column) for s, t in splits.items() if self.label_column in t.features}
        if missing := words[self.split].count(None):
            self._lack(missing)
            return None, None
        names = sorted({name for column in words.values() for name in column if name is not None})
        number = {name: i for i, name in enumerate(names)}
        return torch.tensor([number[name] for name in words[self.split]], dtype=torch.int64), names

    def _lack(self, missing: int) -> None:
        rows = self.sizes[self.split]
        self.unlabelled = f"{missing:,} of {rows:,} rows have none in the column {self.label_column!r}"

    def _check(self, table: Any, column: str) -> None:
        if column not in table.features:
            raise DataError(f"{self.origin} has no column {column!r}.{did_you_mean(column, table.features)}")


def _find_labels(table: Any) -> str | None:
    import datasets

    for column, feature in table.features.items():
        if isinstance(feature, datasets.ClassLabel):
            return str(column)
    kind = getattr(table.features.get("label"), "dtype", "")
    return "label" if kind.startswith(("int", "uint")) or kind in ("string", "large_string") else None


def _why_unlabelled(table: Any) -> str:
    """Return why no column of labels was found, with those that may be one: whole numbers or words that recur."""
    kinds = {c: str(getattr(feature, "dtype", "")) for c, feature in table.features.items()}
    first = table.select(range(min(len(table), ROWS_LOOKED_AT)))
    candidates = [
        column
        for column, kind in kinds.items()
        if not column.startswith("__")  # the library's own, of tar files
        and kind.startswith(("int", "uint", "bool", "string", "large_string"))
        and 1 < len({*_column(first, column)} - {None}) <= max(2, len(first) // 2)
    ]
    if "label" in kinds:
        return f"the column 'label' is {kinds['label']}; labels are whole numbers or words"
    if candidates:
        return f"no column 'label'; label_column may be {' or '.join(map(repr, candidates[:6]))}"
    return f"no column of labels among {', '.join(map(repr, kinds))}"


def _column(table: Any, column: str | None) -> list[Any]:
    values: list[Any] = table.select_columns([column]).with_format("arrow")[:].column(column).to_pylist()
    return values


def _columns(table: Any) -> str:
    kinds = ", ".join(f"{c} ({getattr(f, 'dtype', type(f).__name__)})" for c, f in table.features.items())
    return f"its columns are {kinds}"
