"""Extraction of features from a frozen backbone."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sslkit.checks.outputs import check_features
from sslkit.contracts import Backbone
from sslkit.errors import DataError, NotFinite
from sslkit.types import LabelledImages, at_least_float32


@contextmanager
def frozen(backbone: Backbone) -> Iterator[None]:
    """Put a backbone in eval mode without gradient inside the block; afterwards every module has its mode back."""
    # Module by module: `Module.train` would also set those that were in eval mode inside a network in train mode.
    modes = [(module, module.training) for module in backbone.modules()]
    backbone.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for module, mode in modes:
            module.training = mode


def stream(backbone: Backbone, labelled: LabelledImages) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield features (B, F), float32 or wider, and labels (B,) of each batch; for use inside `frozen`.

    Args:
        backbone: the network, in eval mode.
        labelled: its images.

    Raises:
        DataError: the images have no labels.
        NotFinite: features are not finite.
    """
    wrong: Tensor | int = 0
    for images, labels in labelled.batches():
        if labels is None:
            raise DataError(f"{labelled.name}: these images have no labels")
        features = at_least_float32(check_features(backbone, backbone(images), len(images)).cls)
        # Counted on the device and read once a pass: a read waits for the device.
        wrong = wrong + (~features.isfinite().all(1)).sum()
        yield features, labels.to(images.device)
    if int(wrong):
        raise NotFinite(f"{labelled.name}: the features of {int(wrong)} images are not finite: {_cause(backbone)}")


def _cause(backbone: Backbone) -> str:
    """Return why the features of images that are finite are not."""
    tensors = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    names = [name for name, tensor in tensors.items() if not tensor.isfinite().all()]
    return f"the backbone's {names[0]} is not finite" if names else "its weights are finite, so activations overflow"


def extract(backbone: Backbone, labelled: LabelledImages) -> tuple[Tensor, Tensor]:
    """Return the features (N, F) of all images, float32 or wider and not normalised, and labels (N,).

    Args:
        backbone: the network.
        labelled: its images.

    Raises:
        DataError: there are no images, or they have no labels.
    """
    with frozen(backbone):
        parts = list(stream(backbone, labelled))
    if not parts:
        raise DataError(f"{labelled.name}: there are no images")
    features, labels = zip(*parts)
    return torch.cat(features), torch.cat(labels)
