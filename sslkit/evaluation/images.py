"""Batches of the evaluation view of an image source."""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from sslkit.contracts import ImageSource
from sslkit.data.classes import labels_as_in_training
from sslkit.data.order import permuted
from sslkit.data.worker_signals import outlive_interruption
from sslkit.errors import DataError, SSLKitError, UnreadableImage
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
    """Return both parts of the data as the evaluation view shows them; arguments as for `labelled`.

    Raises:
        DataError: test images are of a class that the training images do not name.
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
    """Return a source's images in batches, in order.

    Images that cannot be read are left out; the first pass says in the log how many and which.

    Args:
        source: the images. Where every label is negative, as in hidden test sets, it counts as unlabelled.
        view: one image (C, H, W) to what the backbone sees; every result has the same shape.
        batch_size: images at once.
        device: where the batches go.
        num_workers: reading processes; 0 reads in this one.
        limit: take this many images, always the same ones.
        labels: (N,) in place of the source's own.
    """
    indices = list(range(len(source)))
    if limit is not None and limit < len(indices):
        # Keyed, not every n-th: labels are often periodic in the order of a source.
        indices = sorted(permuted(range(limit), len(source), seed=0, epoch=0).tolist())
    labels = source.labels if labels is None else labels
    labels = None if labels is None else labels[indices]
    if labels is not None and bool((labels < 0).all()):
        labels = None
    images = _Images(source, view, indices, labels)
    signals = outlive_interruption if num_workers else None
    device = torch.device(device)
    loader = DataLoader(
        images,
        batch_size,
        num_workers=num_workers,
        collate_fn=_collate,
        pin_memory=device.type == "cuda",
        worker_init_fn=signals,
    )
    passes = _Passes(source.name, loader, device)
    return LabelledImages(source.name, passes, len(indices), None if labels is None else len(labels.unique()))


class _Images(Dataset[tuple[Tensor, int | None] | SSLKitError]):
    """View and label of each image, or why there is none: as a value, since torch adds its traceback to an error."""

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
            image = self.view(self.source.read(index).image)
            if not image.isfinite().all():
                # One such image would make the similarities of every other one NaN.
                raise UnreadableImage(self.source.name_of(index), "it has pixels that are not finite")
        except SSLKitError as error:
            return error
        return image, None if self.labels is None else int(self.labels[position])


class _Passes:
    """Starts passes over the images."""

    def __init__(self, name: str, loader: "DataLoader[Any]", device: torch.device) -> None:
        self.name, self.loader, self.device, self.reported = name, loader, device, False

    def __call__(self) -> Iterator[tuple[Tensor, Tensor | None]]:
        left_out: list[str] = []
        found = 0
        for images, labels, errors in self.loader:
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


def _collate(
    items: Sequence[tuple[Tensor, int | None] | SSLKitError],
) -> tuple[Tensor | None, Tensor | None, list[SSLKitError]]:
    errors = [item for item in items if isinstance(item, SSLKitError)]
    pairs = [item for item in items if not isinstance(item, SSLKitError)]
    if not pairs:
        return None, None, errors
    images, labels = zip(*pairs)
    return torch.stack(images), None if labels[0] is None else torch.tensor(labels), errors
