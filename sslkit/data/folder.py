"""Index the image files of a folder: splits, classes and keys."""

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslkit.data.keys import name_keys
from sslkit.errors import NoSuchSplit, UnreadableImage

logger = logging.getLogger("sslkit.data")

IMAGE_SUFFIXES = tuple(
    ".jpg .jpeg .jfif .png .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .jp2 .avif .npy".split()  # noqa: SIM905
)
TABLE_SUFFIXES = (".parquet", ".arrow", ".tar", "metadata.csv", "metadata.jsonl")
SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Canonical names of splits, by the names that are common for folders and in recipes."""


class FolderIndex:
    """The image files of one split of a folder, at any depth, in the order of their names.

    Top-level folders named after splits are splits; without them all images are the split ``train``. Images have labels
    if every image of the split lies in exactly one level of class folders, of which all splits together have at least
    two.

    Args:
        root: the folder.
        files: its image files, relative to it, with the separator ``/``, as `walk` gives them.
        split: name of the split, or one of the other names in `SPLITS`.

    Attributes:
        names: (N,) names of the files relative to the folder, a pyarrow array of bytes.
        keys: (N,) int64, hashes of these names.
        labels: (N,) int64, or None.
        class_names: the class folders of all splits, sorted, or None.

    Raises:
        NoSuchSplit: there is no such split.
    """

    def __init__(self, root: Path, files: Sequence[str], split: str) -> None:
        import pyarrow

        splits = _by_split(root, files)
        chosen = splits.get(SPLITS.get(split.lower(), split))
        if chosen is None:
            raise NoSuchSplit(str(root), split, splits)
        self.root = root
        # Bytes, as the file system has them: a name need not be valid UTF-8.
        names = [os.fsencode(file) for file in chosen]
        # One buffer: reading a list of a million strings would copy its pages, by their reference counts, into every
        # forked worker.
        self.names: Any = pyarrow.array(names, type=pyarrow.large_binary())
        self.keys = name_keys(names)
        self.labels, self.class_names = _classes(splits, chosen)

    def files(self, row: int) -> list[tuple[bytes, str]]:
        """Return one pair, the content and the path of the image of a row.

        Raises:
            UnreadableImage: the file cannot be opened.
        """
        file = self.root / self.place_of(row)
        try:
            return [(file.read_bytes(), str(file))]
        except OSError as error:
            raise UnreadableImage(str(file), error.strerror or str(error)) from error

    def place_of(self, row: int) -> str:
        """Return the path of the image of a row, relative to the folder."""
        return os.fsdecode(self.names[row].as_py())


def walk(root: Path) -> Iterator[str]:
    """Yield the path of every file below a folder, relative to it, with the separator ``/``.

    Links are followed; hidden files and folders, and those of macOS archives, are left out.
    """
    seen: set[str] = set()
    for folder, children, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link to a folder above would never end
            children.clear()
            continue
        seen.add(real)
        children[:] = sorted(child for child in children if not child.startswith((".", "__MACOSX")))
        prefix = "" if Path(folder) == root else Path(folder).relative_to(root).as_posix() + "/"
        yield from (prefix + file for file in files if not file.startswith("."))


def _by_split(root: Path, files: Sequence[str]) -> dict[str, dict[str, str | None]]:
    """Return {split: {file: its class folder, or None unless it lies in exactly one}}, files sorted."""
    tops = {file.partition("/")[0] if "/" in file else "" for file in files}
    named = {top: SPLITS[top.lower()] for top in tops if top.lower() in SPLITS}
    # A class may be called "test": folders are splits only if one is a training split, or all have names of splits.
    is_split = "train" in named.values() or len(named) == len(tops)
    splits: dict[str, dict[str, str | None]] = {}
    for file in sorted(files):
        *folders, _ = file.split("/")
        split = named.get(folders.pop(0) if folders else "") if is_split else "train"
        if split:
            splits.setdefault(split, {})[file] = folders[0] if len(folders) == 1 else None
    if ignored := len(files) - sum(map(len, splits.values())):
        logger.warning("%s: %d images lie outside of its split folders and are not used", root, ignored)
    return splits


def _classes(
    splits: dict[str, dict[str, str | None]], chosen: dict[str, str | None]
) -> tuple[Tensor | None, list[str] | None]:
    # Numbered over all splits, so that a class has one number in training and test.
    names = sorted({name for split in splits.values() for name in split.values() if name is not None})
    if len(names) < 2 or None in chosen.values():
        return None, None
    number = {name: i for i, name in enumerate(names)}
    return torch.tensor([number[name] for name in chosen.values() if name is not None]), names
