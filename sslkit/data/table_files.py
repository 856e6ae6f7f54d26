"""Open tables of images with the ``datasets`` library, and compare its files with those that are there."""

import glob
import json
import os
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from sslkit.data.folder import SPLITS
from sslkit.data.walk import IMAGE_SUFFIXES, note_left_out
from sslkit.errors import DataError

Tables = Mapping[str, Any]
"""{split: table}."""

READERS = {".parquet": "parquet", ".arrow": "arrow", ".tar": "webdataset"}
"""The library's name of the reader of each kind of table."""

SAVED = {"state.json": "_data_files", "dataset_dict.json": "splits"}
"""Files that ``save_to_disk`` writes, with a key that each has."""

DATA_CARDS = ("README.md", ".huggingface.yaml")
"""Files in which a folder may say what the library takes."""


def open_on_hub(name: str, config: str | None = None, revision: str | None = None) -> Tables:
    """Return {split: table} of a data set on the Hugging Face Hub.

    Args:
        name: owner/name.
        config: name of the configuration of the data set.
        revision: its version.

    Raises:
        DataError: it cannot be opened; the message includes the library's reason.
    """
    import datasets

    with opening(name):
        return _by_split(datasets.load_dataset(name, name=config, revision=revision))


def open_saved(folder: Path, holds_images: bool) -> Tables | None:
    """Return {split: table} of a data set that ``save_to_disk`` wrote, or None if the folder is none.

    Args:
        folder: the folder.
        holds_images: whether image files lie there; then a state.json of something else is passed over.

    Raises:
        DataError: it cannot be opened.
    """
    import datasets

    found = [folder / name for name in SAVED if (folder / name).exists()]
    if not found or (holds_images and not any(map(_is_saved, found))):
        return None
    with opening(folder):
        return _by_split(datasets.load_from_disk(str(folder)))


def open_file(file: Path) -> Tables:
    """Return the table of a file under the name of the split in its name, and as ``train``, as every single table.

    Raises:
        DataError: it cannot be opened.
    """
    import datasets

    kind = file.suffix.lower()
    with opening(file):
        if kind == ".arrow":
            table = datasets.Dataset.from_file(str(file))
        else:
            table = datasets.load_dataset(READERS[kind], data_files=glob.escape(str(file)), split="train")
    return {"train": table, SPLITS.get(file.stem.split("-")[0].lower(), "train"): table}


def open_folder(folder: Path, files: Sequence[str], config: str | None, exclude: bool) -> tuple[Tables, str]:
    """Return {split: table} of a folder of tables, and a note on files left out, or an empty one.

    The library finds the splits, and a data card may name them. Where it would take other files than these, each file
    belongs to the split in its path.

    Args:
        folder: the folder.
        files: its tables, relative to it.
        config: name of the configuration of the data set.
        exclude: whether the user left files out.

    Raises:
        DataError: it cannot be opened, or files belong to no split.
    """
    import datasets

    with opening(folder):
        taken = _taken(folder, config)
    there = {os.path.realpath(folder / file): file for file in files}
    if taken is None or exclude or taken - {*there}:
        return _open_by_name(folder, files)
    left_out = [] if config else [file for path, file in there.items() if path not in taken]
    note = _note_no_split(left_out, len(files), folder)
    with opening(folder):
        return _by_split(datasets.load_dataset(str(folder), name=config)), note


def _open_by_name(folder: Path, files: Sequence[str]) -> tuple[Tables, str]:
    import datasets

    named = {file: _split_of(file) for file in files}
    left_out = [file for file in files if named[file] is None] if any(named.values()) else []
    note, reader = _note_no_split(left_out, len(files), folder), _reader(folder, files)
    paths: dict[str, list[str]] = {}
    for file in files:
        if file not in left_out:
            paths.setdefault(named[file] or "train", []).append(glob.escape(str(folder / file)))
    with opening(folder):
        return _by_split(datasets.load_dataset(reader, data_files=paths)), note


def _note_no_split(left_out: Sequence[str], total: int, folder: Path) -> str:
    remedy = (
        "Name the split in their names (train-1.parquet), or leave them out: exclude: [PATTERN, ...]. A table of its "
        "own is read with the file as path."
    )
    return note_left_out(left_out, total, folder, "tables belong to no split, as others do", remedy)


def count_images(file: Path) -> int:
    """Return the number of images in a table, 0 if it holds none or cannot be read."""
    import datasets
    from pyarrow import parquet

    try:
        if file.suffix.lower() == ".tar":
            with tarfile.open(file) as archive:
                return sum(name.lower().endswith(IMAGE_SUFFIXES) for name in archive.getnames())
        if file.suffix.lower() == ".parquet":
            rows = parquet.read_metadata(file).num_rows
            features = datasets.Features.from_arrow_schema(parquet.read_schema(file))
        else:
            table = datasets.Dataset.from_file(str(file))
            rows, features = len(table), table.features
    except Exception:  # readers raise nearly every kind on files that are no tables
        return 0
    return rows if any(map(is_image, features.values())) else 0


def is_image(feature: Any) -> bool:
    """Return whether a column of this type holds images."""
    import datasets

    return isinstance(feature, datasets.Image) or (isinstance(feature, dict) and set(feature) == {"bytes", "path"})


@contextmanager
def opening(what: object) -> Iterator[None]:
    """Raise the errors of the library inside the block as one of a sentence.

    Args:
        what: the data set, for the message.

    Raises:
        DataError: with the library's reason.
    """
    try:
        yield
    except DataError:
        raise
    except Exception as error:  # the library raises nearly every kind, of the Hub, the disk and the formats
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"cannot open the data set {str(what)!r}: {reason}") from error


def _is_saved(file: Path) -> bool:
    try:
        content = json.loads(file.read_bytes())
    except ValueError:
        return False
    return isinstance(content, dict) and SAVED[file.name] in content


def _by_split(found: Any) -> Tables:
    return found if isinstance(found, dict) else {"train": found, str(found.split or "train"): found}


def _taken(folder: Path, config: str | None) -> set[str] | None:
    """Return the files that the library would take, or None if it finds none by itself."""
    import datasets

    try:
        builder = datasets.load_dataset_builder(str(folder), name=config)
    except Exception:
        if config is not None or any((folder / card).exists() for card in DATA_CARDS):
            raise  # the card is part of the data set, and the message names what is wrong
        return None
    chosen = builder.config.data_files or {}
    return {os.path.realpath(file) for files in chosen.values() for file in files}


def _reader(folder: Path, files: Sequence[str]) -> str:
    kinds = sorted({Path(file).suffix.lower() for file in files})
    if len(kinds) > 1:
        names = [f"'*{kind}'" for kind in kinds]
        raise DataError(
            f"{folder} holds tables of several kinds, {' and '.join(kinds)}; leave out all but one: exclude: "
            f"[{', '.join(names[1:])}]"
        )
    return READERS[kinds[0]]


def _split_of(file: str) -> str | None:
    """Return the split that the last word in the path of a table names, or None."""
    words = re.split(r"[-._ 0-9/]+", file.lower())
    return next((SPLITS[word] for word in reversed(words) if word in SPLITS), None)
