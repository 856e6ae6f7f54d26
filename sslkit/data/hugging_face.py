"""Image source over folders, tables and data sets of the Hugging Face ``datasets`` library."""

import difflib
import re
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslkit.contracts import ImageSource
from sslkit.data.decode import decode, decode_mask
from sslkit.data.folder import IMAGE_SUFFIXES, TABLE_SUFFIXES, FolderIndex, walk
from sslkit.data.keys import fingerprint
from sslkit.data.order import permuted
from sslkit.data.tables import TableIndex, open_table
from sslkit.errors import DataError, UnreadableImage
from sslkit.types import Sample

HUB_NAME = r"[\w-][\w.-]*/[\w-][\w.-]*"
"""Pattern of the name of a data set on the Hub, owner/name."""

SMALL = 2**30
"""Bytes of decoded images below which a source is kept in memory by default, in each process."""


class HuggingFaceImages(ImageSource):
    """A folder of images, a table of images, or a data set of the Hugging Face Hub.

    Args:
        path: a folder of images (at any depth, with or without class folders and split folders); a parquet, arrow or
            tar file, or a folder of them; a folder with a metadata.csv or metadata.jsonl; a data set saved by
            ``save_to_disk``; a name on the Hub ("owner/name").
        split: name of the split; a folder or file without splits is all ``train``.
        image_column: column of images in a table; None is the first one.
        label_column: column of labels in a table; None is the first of class labels, or a column called "label". In a
            folder labels are the class folders, where every image lies in exactly one.
        mask_column: column of object masks in a table, read as they are stored; None for no masks.
        channels: number of channels of every image; 1 and 3 are converted to each other, others must match the files.
        in_memory: whether to keep decoded images after the first read, in each process; None keeps them if all of them
            take less than 1 GiB.
        max_images: number of images to use, a random subset that is the same in every run; None uses all.
        config: name of the configuration, for a data set that has several.
        revision: version of a data set on the Hub.

    Attributes:
        keys: (N,) int64; for files the hash of the name relative to ``path``, for tables that of split and row. They do
            not change when the data are moved.

    Raises:
        DataError: there are no such data, image, split or column, or the Hub cannot be reached.
    """

    def __init__(
        self,
        path: str,
        split: str = "train",
        image_column: str | None = None,
        label_column: str | None = None,
        mask_column: str | None = None,
        channels: int = 3,
        in_memory: bool | None = None,
        max_images: int | None = None,
        config: str | None = None,
        revision: str | None = None,
    ) -> None:
        self.channels = channels
        self.index: FolderIndex | TableIndex
        where = _locate(path)
        # Walked only once: for a million files this takes longer than all the rest of the constructor.
        files = [] if where is None or where.is_file() else list(walk(where))
        images = [file for file in files if file.lower().endswith(IMAGE_SUFFIXES)]
        if where and where.is_dir() and not any(file.endswith(TABLE_SUFFIXES) for file in files):
            self._check_folder(where, images, [image_column, label_column, mask_column])
            self.index = FolderIndex(where, images, split)
        else:
            splits = open_table(where or path, config, revision)
            self.index = TableIndex(splits, path, split, image_column, label_column, mask_column)
        self.name = f"{Path(path).name} {split}"
        self.rows = _subset(len(self.index.keys), max_images)
        self.keys = self.index.keys[self.rows]
        self.labels = None if self.index.labels is None else self.index.labels[self.rows]
        self.class_names = self.index.class_names
        self._kept: dict[int, tuple[Tensor, Tensor | None]] = {}
        self.in_memory = self._is_small() if in_memory is None else in_memory

    def read(self, index: int) -> Sample:
        """Decode image ``index``; do not change the tensors, which may be kept in memory.

        Raises:
            UnreadableImage: it is damaged, empty, or has bands that the decoder would drop, or its mask has other
                sides.
        """
        image, mask = self._kept.get(index) or self._decode(index)
        if self.in_memory:
            self._kept[index] = image, mask
        label = None if self.labels is None else int(self.labels[index])
        return Sample(image, int(self.keys[index]), label, mask)

    def __getstate__(self) -> dict[str, Any]:
        # A worker reads other images, and those that this process keeps may be a gigabyte to copy.
        return self.__dict__ | {"_kept": {}}

    def name_of(self, index: int) -> str:
        """Return the file or row of image ``index``, for messages."""
        try:
            return self._files(index)[0][1]
        except UnreadableImage as error:
            return error.name

    def place_of(self, index: int) -> str:
        """Return the file of image ``index`` relative to the folder, or its split and row."""
        return self.index.place_of(int(self.rows[index]))

    def fingerprint(self) -> str:
        """Return a hash of the keys, labels, class names, channels and columns, and of the bytes of 64 of the files.

        It does not depend on where the images are stored.
        """
        columns = [getattr(self.index, f"{kind}_column", None) for kind in ("image", "label", "mask")]
        classes = None if self.class_names is None else "\n".join(self.class_names)
        files = [self._bytes(index) for index in self._probes(64)]
        return fingerprint([self.keys, self.labels, classes, str(self.channels), *columns, *files])

    def _is_small(self) -> bool:
        # Estimated from a few images: the size of the files does not give that of the decoded ones.
        sizes = []
        for index in self._probes(16):
            try:
                sizes.append(sum(tensor.nbytes for tensor in self._decode(index) if tensor is not None))
            except UnreadableImage:
                continue
        return bool(sizes) and sum(sizes) / len(sizes) * len(self) < SMALL

    def _probes(self, num_probes: int) -> list[int]:
        """Return at most ``num_probes`` evenly spaced indices, for checks that would take too long on every image."""
        return sorted({i * len(self) // num_probes for i in range(num_probes)})

    def _decode(self, index: int) -> tuple[Tensor, Tensor | None]:
        image_file, *mask_files = self._files(index)
        image = decode(*image_file, self.channels)
        mask = decode_mask(*mask_files[0]) if mask_files else None
        if mask is not None and mask.shape != image.shape[1:]:
            raise UnreadableImage(image_file[1], f"image {tuple(image.shape[1:])}, but mask {tuple(mask.shape)}")
        return image, mask

    def _files(self, index: int) -> list[tuple[bytes, str]]:
        return self.index.files(int(self.rows[index]))

    def _bytes(self, index: int) -> bytes:
        try:
            return b"".join(data for data, _ in self._files(index))
        except UnreadableImage:
            return b""

    @staticmethod
    def _check_folder(folder: Path, images: list[str], columns: list[str | None]) -> None:
        if not images:
            raise DataError(f"no images under {folder}; looked for {' '.join(IMAGE_SUFFIXES + TABLE_SUFFIXES)}")
        if any(columns):
            named = ", ".join(filter(None, columns))
            raise DataError(f"{folder} is a folder of image files and has no columns: leave out {named}")


def _locate(path: str) -> Path | None:
    """Return the local file or folder, or None for a name on the Hub."""
    where = Path(path).expanduser()
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


def _subset(num_images: int, max_images: int | None) -> Tensor:
    """Return the rows to use, (min(num_images, max_images),) int64, ascending."""
    if max_images is not None and max_images < 1:
        raise DataError(f"max_images must be at least 1, not {max_images}")
    if max_images is None or max_images >= num_images:
        return torch.arange(num_images)
    # Not every n-th row: where classes follow each other periodically, that would miss some of them.
    return torch.from_numpy(np.sort(permuted(np.arange(max_images), num_images, seed=0, epoch=0)))
