"""Substitute unreadable images by their neighbours, and stop a run that has too many of them."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sslkit.checks.outputs import check_sample
from sslkit.contracts import ImageSource
from sslkit.errors import DataError, UnreadableImage
from sslkit.types import Sample

logger = logging.getLogger("sslkit.data")

MAX_TRIES = 100
"""Images read in a row before giving up."""


def read_or_substitute(source: ImageSource, index: int) -> tuple[Sample, list[UnreadableImage]]:
    """Return image ``index``, or the next one that can be read, and the errors of those that could not.

    Args:
        source: the image source.
        index: of the image; after the last one comes the first.

    Raises:
        DataError: none of 100 images in a row, or of all there are, can be read.
    """
    errors: list[UnreadableImage] = []
    for offset in range(min(MAX_TRIES, len(source))):
        try:
            place = (index + offset) % len(source)
            return check_sample(source, place, source.read(place)), errors
        except UnreadableImage as error:
            errors.append(error)
    tried = f"{len(errors)} images in a row cannot be read; the first is"
    if len({error.reason for error in errors}) == 1:
        # The same reason for all is rarely damage: the recipe does not fit the images, so the reason comes first.
        raise DataError(f"{source.name}: {errors[0].reason}. So {tried} {errors[0].name}")
    raise DataError(f"{source.name}: {tried} {errors[0]}")


@contextmanager
def naming(source: ImageSource, index: int) -> Iterator[None]:
    """Put the file or row of image ``index`` before the message of a DataError that does not name it."""
    try:
        yield
    except UnreadableImage:
        raise
    except DataError as error:
        error.args = (f"{source.name_of(index)}: {error}",)
        raise


class UnreadableLog:
    """The unreadable images of a run.

    Each is logged once, as a warning of the logger ``sslkit.data``. The run ends when there are more of them than
    ``limit`` times the images seen, or times 1,000 (all, if there are fewer) until as many were seen. At the default
    limit, one bad file among the first ten of 10,000 does not end a run, and one in a data set of fifty does.

    Args:
        num_images: number of images in the source.
        limit: largest share of unreadable images that is allowed, 0 .. 1.

    Raises:
        DataError: the limit is out of range.
    """

    START = 1000

    def __init__(self, num_images: int, limit: float = 0.01) -> None:
        if not 0 <= limit <= 1:
            raise DataError(f"the share of unreadable images that is allowed is 0 .. 1, not {limit}")
        self.num_images = num_images
        self.limit = limit
        self.num_seen = 0
        self.names: set[str] = set()

    def record(self, num_read: int, errors: Iterable[UnreadableImage]) -> None:
        """Count the images of a batch and its unreadable ones.

        Args:
            num_read: number of images in the batch.
            errors: the errors of those that could not be read.

        Raises:
            DataError: more than ``limit`` of the images cannot be read.
        """
        self.num_seen = min(self.num_seen + num_read, self.num_images)
        for error in errors:
            self._add(error)
        base = max(self.num_seen, min(self.START, self.num_images))
        if len(self.names) > self.limit * base:
            examples = ", ".join(sorted(self.names)[:3])
            raise DataError(
                f"{len(self.names)} of {self.num_seen} images seen cannot be read, more than {self.limit:.2%} (the "
                f"limit). Among them: {examples}. Fix or remove them, or raise runtime.unreadable_limit."
            )

    def _add(self, error: UnreadableImage) -> None:
        if error.name not in self.names:
            self.names.add(error.name)
            logger.warning("unreadable image replaced by its neighbour: %s", error)
