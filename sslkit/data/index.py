"""Find what a path holds: image files, tables of images, or a data set of the Hugging Face Hub."""

import difflib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from sslkit.data.folder import ALL, FolderIndex
from sslkit.data.metadata import read_metadata
from sslkit.data.table_files import READERS, Tables, count_images, open_file, open_folder, open_on_hub, open_saved
from sslkit.data.tables import TableIndex
from sslkit.data.walk import IMAGE_SUFFIXES, MOST_LEFT_OUT, TABLE_SUFFIXES, Contents, note_left_out, walk
from sslkit.errors import DataError, some
from sslkit.paths import local_path

HUB_NAME = r"[\w-][\w.-]*/[\w-][\w.-]*"
"""Pattern of the name of a data set on the Hub, owner/name."""

METADATA_SUFFIXES = (".csv", ".jsonl")
ARCHIVE_SUFFIXES = (".zip", ".gz", ".tgz", ".bz2", ".xz", ".7z", ".rar", ".zst")


class Columns(NamedTuple):
    """The columns of a table that the user named; None for those to be found."""

    image: str | None = None
    label: str | None = None
    mask: str | None = None


class Wanted(NamedTuple):
    """What the user asked for, as the arguments of `HuggingFaceImages`."""

    path: str
    split: str
    columns: Columns
    config: str | None
    revision: str | None
    exclude: Sequence[str]


def open_index(wanted: Wanted) -> tuple[FolderIndex | TableIndex, list[str]]:
    """Return the index of the images of a split, and notes on what is left out.

    Raises:
        DataError: there are no such images, or too many of them would be left out.
    """
    index, notes = _open(wanted)
    return index, [*filter(None, notes)]


def _open(wanted: Wanted) -> tuple[FolderIndex | TableIndex, list[str]]:
    where = _locate(wanted.path)
    if where is not None and where.is_dir():
        return _open_folder(where, wanted)
    if wanted.exclude:
        raise DataError(f"exclude: {wanted.path} is no folder, so there is nothing to leave out")
    if where is None:
        return _table(open_on_hub(wanted.path, wanted.config, wanted.revision), _hub_folders(), wanted), []
    _check_file(where)
    if where.suffix.lower() not in METADATA_SUFFIXES:
        return _table(open_file(where), [where.parent], wanted), []
    metadata, unread = read_metadata(where.parent, [where.name])
    if metadata is None:
        raise DataError(f"{where} cannot be read as a table of image files: {unread[where.name]}")
    tables, notes = metadata.tables([], wanted.split == ALL, listed_only=True)
    return _table(tables, [where.parent], wanted), notes


def _open_folder(root: Path, wanted: Wanted) -> tuple[FolderIndex | TableIndex, list[str]]:
    contents = walk(root, wanted.exclude)
    if saved := open_saved(root, bool(contents.images)):
        note = _note_beside(root, contents.images, sum(map(len, saved.values())))
        return _table(saved, [root], wanted), [note]
    metadata, unread = read_metadata(root, contents.metadata)
    tables = [*contents.tables, *(name for name in unread if name.endswith(TABLE_SUFFIXES))]
    notes = [f"not read: {name} ({reason})" for name, reason in unread.items() if name not in tables]
    if tables and metadata is None and not _are_the_images(root, contents.images, tables):
        splits, note = open_folder(root, tables, wanted.config, bool(wanted.exclude))
        beside = _note_beside(root, [*contents.images, *contents.unread], sum(map(len, splits.values())))
        return _table(splits, [root], wanted), [beside, _broken(root, contents, len(tables)), note, *notes]
    notes += [f"not read: {some(tables)}"] if tables else []
    notes += _unread(root, contents)
    if metadata is not None:
        splits, more = metadata.tables(contents.images, wanted.split == ALL, listed_only=False)
        return _table(splits, [root], wanted), [*more, *notes]
    if not contents.images:
        raise DataError(_no_images(root, contents))
    if any(wanted.columns):
        named = ", ".join(filter(None, wanted.columns))
        raise DataError(f"{root} is a folder of image files and has no columns: leave out {named}")
    index = FolderIndex(root, contents.images, wanted.split)
    return index, [*index.notes, *notes]


def _table(splits: Tables, folders: Sequence[Path], wanted: Wanted) -> TableIndex:
    split = "train" if wanted.split == ALL and {*splits} == {"train"} else wanted.split
    return TableIndex(splits, wanted.path, folders, split, *wanted.columns)


def _are_the_images(root: Path, images: Sequence[str], tables: Sequence[str]) -> bool:
    """Return whether the image files of a folder are its images, rather than those in its tables.

    Raises:
        DataError: it has many of both.
    """
    if not images:
        return False
    in_tables = sum(count_images(root / table) for table in tables)
    if min(in_tables, len(images)) > MOST_LEFT_OUT * (in_tables + len(images)):
        place = Path(os.path.commonpath([root / table for table in tables]))
        alone = f", or set path: {place}" if place != root else ""
        raise DataError(
            f"{root} holds images as files, {len(images):,} ({some(images)}), and in tables, {in_tables:,} "
            f"({some(tables)}). Leave one of both out: exclude: [PATTERN, ...]{alone}."
        )
    return len(images) > in_tables


def _note_beside(root: Path, images: Sequence[str], rows: int) -> str:
    remedy = "Leave them out: exclude: [PATTERN, ...], or set path to a folder of image files."
    return note_left_out(images, len(images) + rows, root, "images are files beside the tables", remedy)


def _unread(root: Path, contents: Contents) -> list[str]:
    """Return notes on images that cannot be read by their kind, and on what is hidden."""
    remedy = "Convert them, or leave them out: exclude: [PATTERN, ...]."
    total = len(contents.images) + len(contents.unread)
    unread = note_left_out(contents.unread, total, root, "images have formats that are not read", remedy)
    hidden = f"hidden and not read: {some(contents.hidden)}" if contents.hidden else ""
    others = ", ".join(f"{count:,} {suffix}" for suffix, count in contents.others.most_common(3))
    return [unread, _broken(root, contents, total), hidden, f"other files: {others}" if others else ""]


def _broken(root: Path, contents: Contents, total: int) -> str:
    """Return a note on entries that are no files, beside ``total`` that are."""
    remedy = "Repair them, or leave them out: exclude: [PATTERN, ...]."
    reason = "entries are broken links, pipes or devices"
    return note_left_out(contents.broken, total + len(contents.broken), root, reason, remedy)


def _no_images(root: Path, contents: Contents) -> str:
    others = ", ".join(f"{count:,} {suffix}" for suffix, count in contents.others.most_common(4))
    holds = f"; it holds {others}" if others else ""
    unpack = ". Unpack the archives" if {*contents.others} & {*ARCHIVE_SUFFIXES} else ""
    return f"no images under {root}; looked for {' '.join(IMAGE_SUFFIXES + TABLE_SUFFIXES)}{holds}{unpack}"


def _check_file(file: Path) -> None:
    """Raise an error for a file that is no table."""
    kind = file.suffix.lower()
    if file.is_file() and kind in (*READERS, *METADATA_SUFFIXES):
        return
    if not file.is_file():
        why = "no regular file, but a pipe or device"
    elif kind in ARCHIVE_SUFFIXES:
        why = "an archive: unpack it, and give the folder"
    elif kind in IMAGE_SUFFIXES:
        why = f"one image: give the folder, {file.parent}"
    else:
        why = "no table of images"
    raise DataError(
        f"{file} is {why}. Images are given as a folder, a table ({' '.join((*READERS, *METADATA_SUFFIXES))}) or a "
        "name on the Hugging Face Hub"
    )


def _hub_folders() -> list[Path]:
    """Return the folders where the libraries keep what they downloaded."""
    import datasets
    import huggingface_hub

    config, constants = datasets.config, huggingface_hub.constants
    return [Path(folder) for folder in (config.HF_DATASETS_CACHE, constants.HF_HUB_CACHE, config.HF_CACHE_HOME)]


def _locate(path: str) -> Path | None:
    """Return the local file or folder, or None for a name on the Hub."""
    where = local_path(path)
    if where.exists():
        return where
    if re.fullmatch(HUB_NAME, path) and where.suffix not in TABLE_SUFFIXES and not where.parent.exists():
        return None
    folder = next(parent for parent in where.absolute().parents if parent.exists())
    missing = where.absolute().relative_to(folder).parts[0]
    near = difflib.get_close_matches(missing, [entry.name for entry in folder.iterdir()], n=3)
    hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
    raise DataError(
        f"{path} does not exist: there is no {missing!r} in {folder}.{hint} "
        "A data set of the Hugging Face Hub is named owner/name."
    )
