"""The files below a folder by what they are, and the limit to what is left out of them."""

import mimetypes
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath

from sslkit.errors import DataError, UnreadableImage, some
from sslkit.progress import track

IMAGE_SUFFIXES = tuple(
    ".jpg .jpeg .jfif .png .webp .gif .bmp .tif .tiff .ppm .pgm .pbm .jp2 .avif .npy".split()  # noqa: SIM905
)
TABLE_SUFFIXES = (".parquet", ".arrow", ".tar")
METADATA_FILES = ("metadata.csv", "metadata.jsonl", "metadata.parquet")
"""Names of files that describe the images beside them, as the ``datasets`` library has them."""

OTHER_IMAGE_SUFFIXES = (
    ".heic",
    ".heif",
    ".jxl",
    ".tga",
    ".psd",
    ".dng",
    ".cr2",
    ".nef",
    ".arw",
    ".exr",
    ".dcm",
    ".svs",
)
"""Image formats that are not read, beside those that `mimetypes` knows."""

MOST_LEFT_OUT = 0.01
"""The share of images that may be left out, with a note, unless the user asked for it."""


@dataclass
class Contents:
    """What lies below a folder; names are relative to it, with the separator ``/``, and sorted.

    Attributes:
        images: image files.
        tables: parquet, arrow and tar files.
        metadata: files called as in `METADATA_FILES`.
        unread: image files of formats that are not read.
        broken: entries that are no files: broken links, pipes, devices.
        hidden: hidden folders and images.
        others: number of the other files by suffix.
    """

    images: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    metadata: list[str] = field(default_factory=list)
    unread: list[str] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    hidden: list[str] = field(default_factory=list)
    others: Counter[str] = field(default_factory=Counter)

    def add(self, name: str, is_file: bool) -> None:
        """Add an entry that is no folder."""
        title, lower = name.rpartition("/")[2], name.lower()
        if title.startswith("."):
            if lower.endswith(IMAGE_SUFFIXES) and not title.startswith("._"):  # those are written by macOS
                self.hidden.append(name)
        elif not is_file:
            self.broken.append(name)
        elif title in METADATA_FILES:
            self.metadata.append(name)
        elif lower.endswith(IMAGE_SUFFIXES):
            self.images.append(name)
        elif lower.endswith(TABLE_SUFFIXES):
            self.tables.append(name)
        elif _is_other_image(lower):
            self.unread.append(name)
        else:
            self.others[PurePosixPath(lower).suffix or "without a suffix"] += 1


def walk(root: Path, exclude: Sequence[str] = ()) -> Contents:
    """Return the files below a folder, at any depth.

    Links are followed, except into a folder that they lie in. Hidden files and folders, and those that macOS adds to
    archives, are not entered.

    Args:
        root: the folder.
        exclude: patterns, as of a shell, of names or relative paths of files and folders to leave out.

    Raises:
        DataError: a folder cannot be listed, or nothing matches a pattern.
    """
    contents, unmatched = Contents(), dict.fromkeys(exclude)
    for name, is_folder, is_file in track(_entries(root, "", frozenset(), exclude, unmatched), f"indexing {root}"):
        if not is_folder:
            contents.add(name, is_file)
        elif not name.rpartition("/")[2].startswith("__MACOSX"):
            contents.hidden.append(name)
    for pattern in unmatched:
        raise DataError(f"exclude: no file or folder of {root} matches {pattern!r}; leave the pattern out")
    for names in vars(contents).values():
        if isinstance(names, list):
            names.sort()
    return contents


def _entries(
    root: Path, prefix: str, above: frozenset[str], exclude: Sequence[str], unmatched: dict[str, None]
) -> Iterator[tuple[str, bool, bool]]:
    """Yield name, whether it is a folder, and whether it is a file; folders only if they are not entered."""
    real = os.path.realpath(root / prefix)
    if real in above:  # a link to a folder above would never end
        return
    try:
        with os.scandir(root / prefix) as listed:
            entries = list(listed)
    except OSError as error:
        raise DataError(f"{root / prefix} cannot be listed: {error.strerror}") from error
    for entry in entries:
        name = prefix + entry.name
        matching = [p for p in exclude if any(fnmatchcase(word, p.rstrip("/")) for word in (name, entry.name))]
        for pattern in matching:
            unmatched.pop(pattern, None)
        if matching:
            continue
        if not _is(entry.is_dir):
            yield name, False, _is(entry.is_file)
        elif entry.name.startswith((".", "__MACOSX")):
            yield name, True, False
        else:
            yield from _entries(root, f"{name}/", above | {real}, exclude, unmatched)


def _is(kind: Callable[[], bool]) -> bool:
    try:
        return kind()
    except OSError:  # a link to itself
        return False


def read_regular(file: Path, name: str) -> bytes:
    """Return the content of a file.

    Args:
        file: its path.
        name: of the image, for the message.

    Raises:
        UnreadableImage: it cannot be opened, or is a pipe or a device, of which reading may never end.
    """
    try:
        if not file.is_file():
            file.stat()  # says why, if there is nothing
            raise UnreadableImage(name, "no regular file, but a folder, pipe or device")
        return file.read_bytes()
    except MemoryError:
        raise UnreadableImage(name, "larger than the memory") from None
    except OSError as error:
        raise UnreadableImage(name, error.strerror or str(error)) from error


def note_left_out(left_out: Sequence[str], total: int, where: object, reason: str, remedy: str) -> str:
    """Return a note on what is left out, empty if nothing is.

    Args:
        left_out: names of what is left out.
        total: number of what there is.
        where: the folder, for the message.
        reason: why it is left out, after "N of M ".
        remedy: what the user can do instead.

    Raises:
        DataError: more than `MOST_LEFT_OUT` of all would be left out.
    """
    if not left_out:
        return ""
    note = f"{len(left_out):,} of {total:,} {reason} ({some(left_out)})"
    if len(left_out) > MOST_LEFT_OUT * total:
        raise DataError(f"{where}: {note}. {remedy}")
    return f"left out: {note}"


def _is_other_image(name: str) -> bool:
    return name.endswith(OTHER_IMAGE_SUFFIXES) or (mimetypes.guess_type(name)[0] or "").startswith("image/")
