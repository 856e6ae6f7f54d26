"""Index tables of images: parquet and arrow files, data sets saved to disk or on the Hugging Face Hub."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslkit.data.folder import SPLITS
from sslkit.data.keys import row_keys
from sslkit.errors import DataError, NoSuchSplit, UnreadableImage, did_you_mean


class TableIndex:
    """The rows of one split of a table.

    Args:
        splits: the splits by name, as the ``datasets`` library gives them.
        origin: name of the table for error messages.
        split: name of the split, or one of the other names in `sslkit.data.folder.SPLITS`.
        image_column: the column of images; None is the first one.
        label_column: the column of labels; None is the first of class labels, or a column ``label`` of whole numbers or
            words.
        mask_column: the column of masks; None for no masks.

    Attributes:
        keys: (N,) int64, hashes of the split's name and the row.
        labels: (N,) int64, or None; a split with missing labels or labels of -1 (none, on the Hub) has None.
        class_names: names of the classes, or None.

    Raises:
        DataError: there is no such split or column, or the column does not hold images or labels.
    """

    def __init__(
        self,
        splits: Mapping[str, Any],
        origin: str,
        split: str,
        image_column: str | None = None,
        label_column: str | None = None,
        mask_column: str | None = None,
    ) -> None:
        self.origin = origin
        self.split = next((s for s in (split, SPLITS.get(split.lower(), split)) if s in splits), "")
        if not self.split:
            raise NoSuchSplit(origin, split, splits)
        table = splits[self.split]
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
        try:
            return Path(path).read_bytes(), name
        except OSError as error:
            raise UnreadableImage(name, error.strerror or str(error)) from error

    def _find_images(self, table: Any) -> str:
        for column, feature in table.features.items():
            if _is_image(feature):
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
            return None, None
        self._check(splits[self.split], self.label_column)
        feature = splits[self.split].features[self.label_column]
        if getattr(feature, "dtype", None) in ("string", "large_string"):
            return self._numbered(splits)
        values = _column(splits[self.split], self.label_column)
        if not all(value is None or isinstance(value, int) for value in values):
            raise DataError(f"{self.origin}: labels in {self.label_column!r} are whole numbers or words, not {feature}")
        if any(value is None or value < 0 for value in values):
            return None, None
        return torch.tensor(values, dtype=torch.int64), getattr(feature, "names", None)

    def _numbered(self, splits: Mapping[str, Any]) -> tuple[Tensor | None, list[str] | None]:
        """Number the words of all splits, so that a class has the same number in training and test."""
        words = {s: _column(t, self.label_column) for s, t in splits.items() if self.label_column in t.features}
        if None in words[self.split]:
            return None, None
        names = sorted({name for column in words.values() for name in column if name is not None})
        number = {name: i for i, name in enumerate(names)}
        return torch.tensor([number[name] for name in words[self.split]], dtype=torch.int64), names

    def _check(self, table: Any, column: str) -> None:
        if column not in table.features:
            raise DataError(f"{self.origin} has no column {column!r}.{did_you_mean(column, table.features)}")


def open_table(path: Path | str, config: str | None = None, revision: str | None = None) -> Mapping[str, Any]:
    """Return {split: table} of a table file, a folder of table files, a data set saved to disk, or a name on the Hub.

    Args:
        path: a `Path` that exists, or a name on the Hub.
        config: name of the configuration of the data set.
        revision: version of a data set on the Hub.

    Raises:
        DataError: it cannot be opened; the message includes the library's reason.
    """
    import datasets

    try:
        if isinstance(path, str):
            found = datasets.load_dataset(path, name=config, revision=revision)
        elif path.is_file():
            found = _open_file(path)
        elif (path / "state.json").exists() or (path / "dataset_dict.json").exists():
            found = datasets.load_from_disk(str(path))
        else:
            found = datasets.load_dataset(str(path), name=config)
    except DataError:
        raise
    except Exception as error:  # the library raises nearly every kind, of the Hub, the disk and the formats
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot open the data set {str(path)!r}: {reason}") from error
    return found if isinstance(found, dict) else {"train": found, str(found.split or "train"): found}


def _open_file(path: Path) -> dict[str, Any]:
    """Return the table under the name of the split in its file name, and as ``train``, as every single table."""
    import datasets

    if path.suffix == ".arrow":
        table = datasets.Dataset.from_file(str(path))
    else:
        kind = "webdataset" if path.suffix == ".tar" else "parquet"
        table = datasets.load_dataset(kind, data_files=str(path), split="train")
    return {"train": table, SPLITS.get(path.stem.split("-")[0].lower(), "train"): table}


def _find_labels(table: Any) -> str | None:
    import datasets

    for column, feature in table.features.items():
        if isinstance(feature, datasets.ClassLabel):
            return str(column)
    kind = getattr(table.features.get("label"), "dtype", "")
    return "label" if kind.startswith(("int", "uint")) or kind in ("string", "large_string") else None


def _is_image(feature: Any) -> bool:
    import datasets

    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


def _column(table: Any, column: str | None) -> list[Any]:
    values: list[Any] = table.select_columns([column]).with_format("arrow")[:].column(column).to_pylist()
    return values


def _columns(table: Any) -> str:
    kinds = ", ".join(f"{c} ({getattr(f, 'dtype', type(f).__name__)})" for c, f in table.features.items())
    return f"its columns are {kinds}"
