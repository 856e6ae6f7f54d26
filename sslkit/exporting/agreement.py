"""Comparison of the features of an exported model with those of the run's backbone."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from sslkit.contracts import Backbone
from sslkit.data.textures import Textures
from sslkit.errors import SSLKitError
from sslkit.types import Preprocessing
from sslkit.views.evaluation import EvaluationView

TOLERANCE = 1e-4
"""Largest allowed relative difference of features; rounding in float32 gave up to 2e-5 for a ViT-S."""


def trial_images(preprocessing: Preprocessing) -> list[Tensor]:
    """Return batches of 4, 8 and 1 images (N, C, H, W): noise, and textures preprocessed like the run's images."""
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(4, preprocessing.channels, preprocessing.size, preprocessing.size, generator=generator)
    view = EvaluationView(
        preprocessing.size,
        preprocessing.resize,
        preprocessing.channels,
        preprocessing.mean,
        preprocessing.std,
        (0.0, 255.0),
    )
    # Textures are RGB: other numbers of channels repeat or drop bands.
    bands = [band % 3 for band in range(preprocessing.channels)]
    pictures, _ = Textures(8, max(preprocessing.resize, 8)).pictures
    textures = torch.stack([view(picture[bands]) for picture in pictures])
    # A batch of 1 as well: an export may have fixed the batch size or squeezed that dimension.
    return [noise, textures, textures[:1]]


@torch.no_grad()
def features_of(backbone: Backbone, batches: Sequence[Tensor]) -> list[Tensor]:
    """Return the features (N, F) of each batch.

    Args:
        backbone: the network, in eval mode.
        batches: images (N, C, H, W).

    Raises:
        SSLKitError: the features are not finite, or the backbone does not accept such images.
    """
    features = [backbone(images).cls for images in batches]
    if not all(rows.isfinite().all() for rows in features):
        raise SSLKitError("the features of this backbone are not finite: its run has diverged")
    return features


@torch.no_grad()
def largest_difference(
    model: Callable[[Tensor], Tensor], batches: Sequence[Tensor], expected: Sequence[Tensor]
) -> float:
    """Return the largest relative difference of features over all images: l2 norm of difference over that of features.

    Args:
        model: from images (N, C, H, W) to features (N, F).
        batches: images.
        expected: features of each batch.

    Returns:
        The difference, infinite for features of another shape, NaN if a feature is NaN.
    """
    differences = []
    for images, features in zip(batches, expected, strict=True):
        found = model(images)
        if found.shape != features.shape:
            return float("inf")
        norm = features.norm(dim=1).clamp_min(torch.finfo(features.dtype).tiny)
        differences.append(((found - features).norm(dim=1) / norm).max())
    return float(torch.stack(differences).max())
