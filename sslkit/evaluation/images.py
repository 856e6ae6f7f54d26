"""Batches of images for evaluation, from an image source."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sslkit.checks.failures import failure_in
from sslkit.checks.outputs import check_sample
from sslkit.contracts import ImageSource
from sslkit.data.classes import labels_as_in_training
from sslkit.data.order import permuted
from sslkit.data.substitution import naming
from sslkit.data.workers import Workers
from sslkit.errors import DataError, SSLKitError, UnreadableImage
from sslkit.progress import track
from sslkit.types import EvaluationData, LabelledImages, Preprocessing
from sslkit.views.evaluation import EvaluationView

logger = logging.getLogger("sslkit.evaluation")


def evaluation_data(
    train: ImageSource,
    test: ImageSource,
    preprocessing: Preprocessing,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
    limit: int | None = None,
) -> EvaluationData:
    """Return training and test images, preprocessed for a frozen backbone.

    Args:
        train: images to fit or to store.
        test: images to measure on; their labels are matched with those of ``train`` by class name.
        preprocessing: resize, crop and normalisation.
        batch_size: as for `labelled`, like all that follow.
        device: where the batches go.
        num_workers: processes that load images.
        limit: number of images of each source, or None for all.

    Raises:
        DataError: the test images have a class that the training images do not have.
    """
    view = EvaluationView(
        preprocessing.size,
        preprocessing.resize,
        preprocessing.channels,
        preprocessing.mean,
        preprocessing.std,
        None if preprocessing.value_range is None else (preprocessing.value_range[0], preprocessing.value_range[1]),
    )
    return EvaluationData(
        labelled(train, view, batch_size, device, num_workers, limit),
        labelled(test, view, batch_size, device, num_workers, limit, labels_as_in_training(train, test)),
    )


def labelled(
    source: ImageSource,
    view: Callable[[Tensor], Tensor],
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    num_workers: int = 0,
    limit: int | None = None,
    labels: Tensor | None = None,
) -> LabelledImages:
    """Return the images of a source in batches, always in the order of the source.

    Unreadable images are left out; the first complete pass logs their number and the first of them.

    Args:
        source: the images. If all labels are negative, as in hidden test sets, they count as unlabelled.
        view: preprocessing from one image (C, H, W) to the backbone's input; its results all have the same shape.
        batch_size: images per batch; one with unreadable images is smaller.
        device: where the batches go.
        num_workers: processes that load images; 0 loads in this one.
        limit: number of images to use, always the same ones; None for all.
        labels: (N,), used instead of the labels of the source.

    Returns:
        Images; a pass over them raises DataError if none can be read.
    """
    indices = list(range(len(source)))
    if limit is not None and limit < len(indices):
        # A random subset with a fixed seed, not every n-th image: labels are often periodic in the order of a source.
        indices = sorted(permuted(range(limit), len(source), seed=0, epoch=0).tolist())
    labels = source.labels if labels is None else labels
    labels = None if labels is None else labels[indices]
    if labels is not None and bool((labels < 0).all()):
        labels = None
    images = _Images(source, view, indices, labels)
    device, workers = torch.device(device), Workers(num_workers)
    loader = DataLoader(
        images,
        batch_size,
        collate_fn=_collate,
        # From pinned memory, the copy to a GPU runs beside its computation.
        pin_memory=device.type == "cuda",
        **workers.options,
    )
    passes = _Passes(source.name, loader, workers, device, len(indices))
    return LabelledImages(source.name, passes, len(indices), None if labels is None else len(labels.unique()))


class _Images(Dataset[tuple[Tensor, int | None] | SSLKitError]):
    """Data set of preprocessed images and labels.

    An unreadable image yields its error as an item: torch would add a traceback to the message of a raised one.
    """

    def __init__(
        self,
        source: ImageSource,
        view: Callable[[Tensor], Tensor],
        indices: Sequence[int],
        labels: Tensor | None,
    ) -> None:
        self.source, self.view, self.indices, self.labels = source, view, indices, labels

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, position: int) -> tuple[Tensor, int | None] | SSLKitError:
        index = self.indices[position]
        try:
            with naming(self.source, index):
                image = self.view(check_sample(self.source, index, self.source.read(index)).image)
            if not image.isfinite().all():
                # One such image would make the similarities of every other one NaN.
                raise UnreadableImage(self.source.name_of(index), "it has pixels that are not finite")
        except SSLKitError as error:
            return error
        except (Exception, SystemExit) as error:
            if failure := failure_in(error):
                return failure
            raise
        return image, None if self.labels is None else int(self.labels[position])


class _Passes:
    """An iterable over batches of images and labels for each call, without unreadable images.

    Args:
        name: of the images, for messages.
        loader: yields images, labels and errors of a batch.
        workers: its processes.
        device: where the batches go.
        total: number of images.
    """

    def __init__(
        self, name: str, loader: "DataLoader[Any]", workers: Workers, device: torch.device, total: int
    ) -> None:
        self.name, self.loader, self.workers, self.device, self.total = name, loader, workers, device, total
        self.reported = False

    def __call__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        left_out: list[str] = []
        found = 0
        for images, labels, errors in track(self.workers.load(self.loader), self.name, self.total, _size):
            for error in errors:
                if not isinstance(error, UnreadableImage):
                    raise error
                left_out.append(str(error))
            if images is not None:
                found += len(images)
                images = images.to(self.device, non_blocking=True)
                yield images, None if labels is None else labels.to(self.device, non_blocking=True)
        self._report(left_out, found)

    def _report(self, left_out: list[str], found: int) -> None:
        if left_out and not found:
            raise DataError(f"{self.name}: none of {len(left_out)} images can be read. The first: {left_out[0]}")
        if left_out and not self.reported:
            self.reported = True
            shown = "; ".join(left_out[:5]) + ("; ..." if len(left_out) > 5 else "")
            logger.warning("%s: %d unreadable images left out: %s", self.name, len(left_out), shown)


def _size(batch: tuple[Tensor | None, Tensor | None, list[SSLKitError]]) -> int:
    """Return the number of images of a batch, unreadable ones among them."""
    images, _, errors = batch
    return len(errors) + (0 if images is None else len(images))


def _collate(
    items: Sequence[tuple[Tensor, int | None] | SSLKitError],
) -> tuple[Tensor | None, Tensor | None, list[SSLKitError]]:
    errors = [item for item in items if isinstance(item, SSLKitError)]
    pairs = [item for item in items if not isinstance(item, SSLKitError)]
    if not pairs:
        return None, None, errors
    images, labels = zip(*pairs)
    return torch.stack(images), None if labels[0] is None else torch.tensor(labels), errors
