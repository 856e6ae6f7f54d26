"""Image source over folders, tables and data sets of the Hugging Face ``datasets`` library."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sslkit.contracts import ImageSource
from sslkit.data.decode import MAX_PIXELS, decode, decode_mask
from sslkit.data.index import Columns, Wanted, open_index
from sslkit.data.keys import fingerprint
from sslkit.data.order import permuted
from sslkit.errors import DataError, UnreadableImage
from sslkit.types import Sample

SMALL = 2**30
"""Bytes of decoded images below which a source is kept in memory by default, in each process."""


class HuggingFaceImages(ImageSource):
    """A folder of images, a table of images, or a data set of the Hugging Face Hub.

    Args:
        path: a folder of images (at any depth, with or without class folders and split folders), which a metadata.csv
            or metadata.jsonl with a column file_name may describe; that table itself, for the images that it lists; a
            parquet, arrow or tar file, or a folder of them; a data set saved by ``save_to_disk``; a name on the Hub
            ("owner/name").
        split: name of the split; a folder or file without splits is all ``train``. ``all`` is all images of a folder,
            whatever their folders are called.
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
        exclude: patterns, as of a shell, of names or relative paths of files and folders of ``path`` to leave out.
        max_pixels: width times height of the largest image to decode; larger ones are unreadable.

    Attributes:
        keys: (N,) int64; for files the hash of the name relative to ``path``, for tables that of split and row. They do
            not change when the data are moved.

    Raises:
        DataError: there are no such data, image, split or column, more than 1 % of the images would be left out, or
            the Hub cannot be reached.
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
        exclude: Sequence[str] = (),
        max_pixels: int = MAX_PIXELS,
    ) -> None:
        self.channels = channels
        self.max_pixels = max_pixels
        columns = Columns(image_column, label_column, mask_column)
        self.index, self.notes = open_index(Wanted(path, split, columns, config, revision, exclude))
        self.path = path
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

    def summary(self) -> str:
        """Return one line on the images and labels found, and on what was left out and why."""
        total, others = len(self.index.keys), {k: n for k, n in self.index.sizes.items() if k != self.index.split}
        of_all = "" if len(self) == total else f" of {total:,} (max_images)"
        images = "image" if len(self) == 1 else "images"
        splits = f", other splits: {', '.join(f'{k} {n:,}' for k, n in others.items())}" if others else ""
        classes = f"{len(self.class_names):,} classes" if self.class_names else "labels without class names"
        labels = f"no labels: {self.index.unlabelled}" if self.labels is None else classes
        found = f"{self.path}: {len(self):,}{of_all} {images} of split {self.index.split!r}{splits}"
        return "; ".join([found, labels, *self.notes])

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
        image = decode(*image_file, self.channels, self.max_pixels)
        mask = decode_mask(*mask_files[0], self.max_pixels) if mask_files else None
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


def _subset(num_images: int, max_images: int | None) -> Tensor:
    """Return the rows to use, (min(num_images, max_images),) int64, ascending."""
    if max_images is not None and max_images < 1:
        raise DataError(f"max_images must be at least 1, not {max_images}")
    if max_images is None or max_images >= num_images:
        return torch.arange(num_images)
    # Not every n-th row: where classes follow each other periodically, that would miss some of them.
    return torch.from_numpy(np.sort(permuted(np.arange(max_images), num_images, seed=0, epoch=0)))
