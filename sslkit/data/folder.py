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
"""Canonical names of splits, by the names that folders and users give them."""


class FolderIndex:
    """The image files of one split of a folder, at any depth, in the order of their names.

    Folders named after splits at the top make splits; without them everything is ``train``. Images have labels where
    every image of the split lies in exactly one level of class folders, of which all splits together have at least
    two. Hidden files and folders are passed over; links are followed.

    Args:
        root: the folder.
        files: its image files, relative to it, as `image_files` gives them.
        split: which part.

    Attributes:
        keys: (N,) int64, of the files' names relative to the folder.
        labels: (N,) int64, or None.
        class_names: the class folders of all splits, sorted, or None.

    Raises:
        NoSuchSplit: there is no such split.
    """

    def __init__(self, root: Path, files: Sequence[str], split: str) -> None:
        import pyarrow

        parts = _by_split(root, files)
        chosen = parts.get(SPLITS.get(split.lower(), split))
        if chosen is None:
            raise NoSuchSplit(str(root), split, parts)
        self.root = root
        names = [os.fsencode(file) for file in chosen]
        # One buffer: a list of a million strings would be copied page by page into every forked worker.
        self.names: Any = pyarrow.array(names, type=pyarrow.large_binary())
        self.keys = name_keys(names)
        self.labels, self.class_names = _classes(parts, chosen)

    def files(self, row: int) -> list[tuple[bytes, str]]:
        """Return the content and the name of the row's image.

        Raises:
            UnreadableImage: the file cannot be opened.
        """
        file = self.root / os.fsdecode(self.names[row].as_py())
        try:
            return [(file.read_bytes(), str(file))]
        except OSError as error:
            raise UnreadableImage(str(file), error.strerror or str(error)) from error


def walk(root: Path) -> Iterator[str]:
    """Yield every visible file below a folder, relative to it, its parts joined by ``/``."""
    seen: set[str] = set()
    for folder, children, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link back up
            children.clear()
            continue
        seen.add(real)
        children[:] = sorted(child for child in children if not child.startswith((".", "__MACOSX")))
        prefix = "" if Path(folder) == root else Path(folder).relative_to(root).as_posix() + "/"
        yield from (prefix + file for file in files if not file.startswith("."))


def _by_split(root: Path, files: Sequence[str]) -> dict[str, dict[str, str | None]]:
    """Return {split: {file: its class folder, if it lies in exactly one}}, files sorted."""
    tops = {file.partition("/")[0] if "/" in file else "" for file in files}
    named = {top: SPLITS[top.lower()] for top in tops if top.lower() in SPLITS}
    # A class may be called "test"; a folder of splits has a training part, or nothing but splits.
    is_split = "train" in named.values() or len(named) == len(tops)
    parts: dict[str, dict[str, str | None]] = {}
    for file in sorted(files):
        *folders, _ = file.split("/")
        split = named.get(folders.pop(0) if folders else "") if is_split else "train"
        if split:
            parts.setdefault(split, {})[file] = folders[0] if len(folders) == 1 else None
    if ignored := len(files) - sum(map(len, parts.values())):
        logger.warning("%s: %d images lie outside of its split folders and are not used", root, ignored)
    return parts


def _classes(
    parts: dict[str, dict[str, str | None]], chosen: dict[str, str | None]
) -> tuple[Tensor | None, list[str] | None]:
    names = sorted({name for part in parts.values() for name in part.values() if name is not None})
    if len(names) < 2 or None in chosen.values():
        return None, None
    number = {name: i for i, name in enumerate(names)}
    return torch.tensor([number[name] for name in chosen.values() if name is not None]), names
