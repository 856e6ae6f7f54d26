"""Index the image files of a folder: splits, classes and keys."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sslkit.data.keys import name_keys
from sslkit.data.walk import MOST_LEFT_OUT, note_left_out, read_regular
from sslkit.errors import NoSuchSplit, some

SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "val", "valid", "dev"), "validation"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Canonical names of splits, by the names that are common for folders and in recipes."""

ALL = "all"
"""The split of all images, whatever their folders are called."""

Files = dict[str, str | None]
"""{file: its class folder, or None unless it lies in exactly one}, sorted by file."""


class FolderIndex:
    """The image files of one split of a folder, at any depth, in the order of their names.

    Splits are as `read_splits` finds them. Images have labels if every image of the split lies in exactly one level of
    class folders, of which all splits together have at least two.

    Args:
        root: the folder.
        files: its image files, relative to it, with the separator ``/``, as `walk` gives them.
        split: name of the split, one of the other names in `SPLITS`, or ``all``.

    Attributes:
        names: (N,) names of the files relative to the folder, a pyarrow array of bytes.
        keys: (N,) int64, hashes of these names.
        labels: (N,) int64, or None.
        class_names: the class folders of all splits, sorted, or None.
        unlabelled: why there are no labels, or empty.
        notes: on what is left out, and on folders that may be meant as splits.
        sizes: number of images of each split.

    Raises:
        NoSuchSplit: there is no such split.
        DataError: images lie outside of the split folders, more than may be left out.
    """

    def __init__(self, root: Path, files: Sequence[str], split: str) -> None:
        import pyarrow

        splits, self.notes = read_splits(root, files, as_one=split == ALL)
        chosen = choose_split(splits, str(root), split)
        self.sizes = {name: len(images) for name, images in splits.items()}
        self.split = chosen
        self.root = root
        # Bytes, as the file system has them: a name need not be valid UTF-8.
        names = [os.fsencode(file) for file in splits[chosen]]
        # One buffer: reading a list of a million strings would copy its pages, by their reference counts, into every
        # forked worker.
        self.names: Any = pyarrow.array(names, type=pyarrow.large_binary())
        self.keys = name_keys(names)
        self.class_names, self.unlabelled = class_folders(splits, splits[chosen])
        number = {name: i for i, name in enumerate(self.class_names or ())}
        self.labels: Tensor | None = None
        if self.class_names:
            folders = [name for name in splits[chosen].values() if name is not None]
            self.labels = torch.tensor([number[_readable(name)] for name in folders], dtype=torch.int64)

    def files(self, row: int) -> list[tuple[bytes, str]]:
        """Return one pair, the content and the path of the image of a row.

        Raises:
            UnreadableImage: the file cannot be opened.
        """
        file = self.root / self.place_of(row)
        return [(read_regular(file, str(file)), str(file))]

    def place_of(self, row: int) -> str:
        """Return the path of the image of a row, relative to the folder."""
        return os.fsdecode(self.names[row].as_py())


def read_splits(root: Path, files: Sequence[str], as_one: bool = False) -> tuple[dict[str, Files], list[str]]:
    """Return the splits of image files by name, and notes for the user.

    Top-level folders named after splits are splits if all folders are, or if one is a training split. So a class may be
    called ``test``, and ``train`` where it is one of several class folders. All other files are the split ``train``.

    Args:
        root: the folder, for messages.
        files: image files, relative to it.
        as_one: whether they are one split in any case.

    Raises:
        DataError: images lie outside of the split folders, more than may be left out.
    """
    tops = {file.partition("/")[0] if "/" in file else "" for file in files}
    named = {} if as_one else {top: SPLITS[top.lower()] for top in tops if top.lower() in SPLITS}
    outside = [file for file in files if file.partition("/")[0] not in named] if named else []
    notes = []
    if outside and ("train" not in named.values() or _is_class(named, tops, files, len(outside))):
        notes = [f"folder {some(sorted(named))} read as one of the others, not as a split"]
        named, outside = {}, []
    if not as_one and len(tops) == 1:
        notes += _splits_one_level_deeper(root, files)
    splits: dict[str, Files] = {}
    for file in sorted(files):
        *folders, _ = file.split("/")
        split = named.get(folders.pop(0) if folders else "") if named else "train"
        if split:
            splits.setdefault(split, {})[file] = folders[0] if len(folders) == 1 else None
    folder = next((top for top in named if named[top] == "train"), "")
    remedy = (
        f"If they are training images, set split: {ALL}, which reads all folders alike; if not, name them in exclude: "
        f"[PATTERN, ...], or set path: {root / folder} with split: train."
    )
    notes.append(note_left_out(sorted(outside), len(files), root, "images lie outside of the split folders", remedy))
    return splits, [*filter(None, notes)]


def _is_class(named: dict[str, str], tops: set[str], files: Sequence[str], num_outside: int) -> bool:
    """Return whether the only folder with the name of a split is rather one of several class folders."""
    is_small = num_outside <= MOST_LEFT_OUT * len(files)
    return len(named) == 1 and len(tops) > 2 and not is_small and all(file.count("/") == 1 for file in files)


def _splits_one_level_deeper(root: Path, files: Sequence[str]) -> list[str]:
    """Return a note on folders of splits inside the only top-level folder, or none."""
    paths = {tuple(file.split("/")[:2]) for file in files if file.count("/") > 1}
    inner = sorted({folder for _, folder in paths if folder.lower() in SPLITS})
    top = next(iter(paths))[0] if inner and next(iter(paths))[0].lower() not in SPLITS else ""
    return [f"{some(inner)} in {top} read as plain folders; as splits with path: {root / top}"] if top else []


def choose_split(splits: dict[str, Files], owner: str, split: str) -> str:
    """Return the name of a split as it is in ``splits``.

    Raises:
        NoSuchSplit: there is none.
    """
    chosen = "train" if split == ALL else SPLITS.get(split.lower(), split)
    if chosen not in splits:
        raise NoSuchSplit(owner, split, splits)
    return chosen


def class_folders(splits: dict[str, Files], chosen: Files) -> tuple[list[str] | None, str]:
    """Return the classes of all splits, sorted, or None and the reason why the chosen images have no labels."""
    # Numbered over all splits, so that a class has one number in training and test.
    names = sorted({_readable(name) for split in splits.values() for name in split.values() if name is not None})
    without = [file for file, name in chosen.items() if name is None]
    if len(names) < 2:
        return None, f"{'one class folder' if names else 'no class folders'}"
    if without:
        return None, f"{len(without):,} of {len(chosen):,} images do not lie in one class folder ({some(without)})"
    return names, ""


def _readable(name: str) -> str:
    """Return the name of a folder as text that can be printed and stored, whatever its bytes."""
    return os.fsencode(name).decode("utf-8", "backslashreplace")
