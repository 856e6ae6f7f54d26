"""Causes of failures that the training images show: they are constant, or the same one many times."""

from collections.abc import Iterator

from torch import Tensor

from sslkit.contracts import ImageSource
from sslkit.data.order import permuted
from sslkit.errors import SSLKitError
from sslkit.recommendation import ANY_FAILURE, Recommendation

LOOKED_AT = 64
"""Training images that are read, always the same ones; a cause is what half of them show."""


def image_causes(source: ImageSource) -> Iterator[Recommendation]:
    """Yield what is wrong with the training images of a run that failed.

    Args:
        source: the images, of which `LOOKED_AT` are read.
    """
    images = list(_some_images(source))
    constant = sum(bool((image == image.flatten(1)[:, :1, None]).all()) for image in images)
    different = len({(tuple(image.shape), image.numpy().tobytes()) for image in images})
    if constant > len(images) / 2:
        yield _cause(f"{constant} of the {len(images)} images looked at are constant, the same at every pixel")
    if images and different <= len(images) / 2:
        yield _cause(f"the {len(images)} images looked at are copies of {different} image{'s' * (different > 1)}")


def _cause(what: str) -> Recommendation:
    return Recommendation(f"data.train: {what}; check which images it names", leads_to=ANY_FAILURE)


def _some_images(source: ImageSource) -> Iterator[Tensor]:
    """Yield images (C, H, W) from all over a source, but for those that cannot be read."""
    for index in permuted(range(min(LOOKED_AT, len(source))), len(source), seed=0, epoch=0).tolist():
        try:
            yield source.read(index).image
        except SSLKitError:
            continue
