"""Tables of columns for the image files beside them: metadata.csv, metadata.jsonl, metadata.parquet."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sslkit.data.folder import Files, class_folders, read_splits
from sslkit.data.table_files import opening
from sslkit.data.walk import note_left_out
from sslkit.errors import DataError, some

FILE_NAME = "file_name"


@dataclass(frozen=True)
class Metadata:
    """The rows of metadata files.

    Args:
        root: the folder that holds them.
        frame: a pandas frame; ``file_name`` and ``X_file_name`` became ``image`` and ``X``, relative to ``root``.
        image_columns: the columns of file names, that of the images first.
    """

    root: Path
    frame: Any
    image_columns: list[str]

    def tables(self, images: Sequence[str], as_one: bool, listed_only: bool) -> tuple[dict[str, Any], list[str]]:
        """Return tables of images, one a split, and notes for the user.

        Splits are those of the images' folders. Without a column ``label`` class folders give it, if there are some.

        Args:
            images: the image files of the folder.
            as_one: whether folders are no splits.
            listed_only: whether the user asked for the images of the rows alone.

        Raises:
            DataError: too many images have no row, or rows no image.
        """
        main = [name if isinstance(name, str) else "" for name in self.frame[self.image_columns[0]]]
        notes = [self._without_image(main, {*images})]
        if not listed_only:
            notes.append(self._without_row(images))
        splits, more = read_splits(self.root, [*dict.fromkeys(main)], as_one)
        frame = self.frame if "label" in self.frame else self._with_class_folders(main, splits)
        tables = {split: self._table(frame[[name in files for name in main]]) for split, files in splits.items()}
        return tables, [*filter(None, [*notes, *more])]

    def _without_image(self, main: Sequence[str], known: set[str]) -> str:
        lost = [name or "''" for name in main if name not in known and not (name and (self.root / name).is_file())]
        remedy = "Correct the table, or use the images without it: exclude: [NAME OF THE TABLE]."
        return note_left_out(lost, len(main), self.root, "rows of metadata name images that are not there", remedy)

    def _without_row(self, images: Sequence[str]) -> str:
        listed = {name for column in self.image_columns for name in self.frame[column]}
        unlisted = [image for image in images if image not in listed]
        remedy = (
            "Use all images without the table, with exclude: [NAME OF THE TABLE], or only those that it lists, with "
            "the table itself as path."
        )
        return note_left_out(unlisted, len(images), self.root, "images have no row in the metadata", remedy)

    def _with_class_folders(self, main: Sequence[str], splits: dict[str, Files]) -> Any:
        folders = {name: folder for files in splits.values() for name, folder in files.items()}
        if class_folders(splits, folders)[0] is None:
            return self.frame
        return self.frame.assign(label=[folders.get(name) for name in main])

    def _table(self, frame: Any) -> Any:
        import datasets

        with opening(self.root):  # a column of mixed kinds is refused
            table = datasets.Dataset.from_pandas(frame, preserve_index=False)
            for column in self.image_columns:
                table = table.cast_column(column, datasets.Image(decode=False))
        return table


def read_metadata(root: Path, files: Sequence[str]) -> tuple[Metadata | None, dict[str, str]]:
    """Return the rows of metadata files, or None, and why files are not read, by file.

    Args:
        root: the folder.
        files: metadata files, relative to it. Those without a column of file names describe something else.

    Raises:
        DataError: a row names a file outside of the folder.
    """
    frames: list[Any] = []
    columns: dict[str, None] = {}
    unread: dict[str, str] = {}
    for file in files:
        try:
            frame = _read(root / file)
        except Exception as error:  # parsers raise nearly every kind
            unread[file] = str(error).strip().partition("\n")[0]
            continue
        names = {column: _image_column(column) for column in frame.columns if _holds_names(column)}
        if names:
            columns |= dict.fromkeys(names.values())
            frames.append(_relative_to_root(frame, names, root, file))
        else:
            unread[file] = f"no column {FILE_NAME}, only {some([*map(str, frame.columns)], 6)}"
    if not frames:
        return None, unread
    import pandas

    frame = pandas.concat(frames, ignore_index=True)
    first = sorted(columns, key=lambda column: column != "image")
    return Metadata(root, frame, first), unread


def _read(file: Path) -> Any:
    import pandas

    if file.suffix == ".parquet":
        return pandas.read_parquet(file)
    if file.suffix == ".jsonl":
        return pandas.read_json(file, lines=True, dtype=False)
    header = pandas.read_csv(file, nrows=0)
    # As text: otherwise a file called 001 would be looked for as 1.
    return pandas.read_csv(file, dtype={column: str for column in header.columns if _holds_names(column)})


def _holds_names(column: object) -> bool:
    return str(column) == FILE_NAME or str(column).endswith(f"_{FILE_NAME}")


def _image_column(column: str) -> str:
    return column.removesuffix(f"_{FILE_NAME}") if column != FILE_NAME else "image"


def _relative_to_root(frame: Any, names: dict[str, str], root: Path, table: str) -> Any:
    """Return a frame whose columns of file names are relative to the root, under the names of image columns."""
    for column in names:
        frame = frame.assign(**{column: [_inside(value, root, table) for value in frame[column]]})
    return frame.drop(columns=[name for name in names.values() if name in frame]).rename(columns=names)


def _inside(value: object, root: Path, table: str) -> str | None:
    if not isinstance(value, str) or not value:
        return None
    name = os.path.normpath(Path(table).parent / value)
    if Path(name).is_absolute() or Path(name).parts[0] == os.pardir:
        raise DataError(f"{root / table}: {value!r} lies outside of the folder {root}, of which alone images are read")
    return Path(name).as_posix()
