"""What a person wants to see of a run."""

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from sslkit.contracts import Backbone
from sslkit.evaluation.images import evaluation_data
from sslkit.evaluators.features import frozen
from sslkit.progress import stage
from sslkit.recipe.sections import BuiltRecipe
from sslkit.types import ImageFeatures, Preprocessing, Views


class VisualizationData:
    """Images, views and features of a run, for pictures.

    Args:
        built: the built recipe.
        preprocessing: how evaluators see the images.
        device: where the backbone is.
        backbone: the teacher's.
        first_views: makes the views of the first batch of the first epoch.
    """

    def __init__(
        self,
        built: BuiltRecipe,
        preprocessing: Preprocessing,
        device: torch.device,
        backbone: Backbone,
        first_views: Callable[[], Views],
    ) -> None:
        self.built, self.preprocessing, self.device = built, preprocessing, device
        self.backbone, self.first_views = backbone, first_views

    def sample_views(self, count: int) -> Views:
        """Return the views of the first ``count`` images of the first epoch, on the CPU."""
        views = self.first_views().narrow(0, count)
        return Views(tuple(group._replace(images=group.images.cpu()) for group in views.groups), views.num_globals)

    def image_features(self, part: Literal["train", "test"], limit: int) -> ImageFeatures | None:
        """Return at most ``limit`` images of that part of the data, always the same ones; None where there is none."""
        if getattr(self.built.data, part) is None:
            return None
        train, test = self.built.data.train, self.built.data.test or self.built.data.train
        batch_size = self.built.evaluation.batch_size
        data = evaluation_data(train, test, self.preprocessing, batch_size, self.device, limit=limit)
        seen = []
        with frozen(self.backbone), stage("features for pictures"):
            for images, labels in getattr(data, part).batches():
                seen.append((images.cpu(), self.backbone(images).cls.float().cpu(), labels))
        images, features, labels = zip(*seen, strict=True)
        whole = None if labels[0] is None else torch.cat(labels).cpu()
        return ImageFeatures(torch.cat(images), torch.cat(features), whole)

    def as_picture(self, image: Tensor) -> Tensor:
        """Undo the normalisation of (C, H, W): (H, W, 3) in 0..1; of more bands the first three are shown."""
        preprocessing = self.preprocessing
        mean, std = (torch.tensor(values)[:, None, None] for values in (preprocessing.mean, preprocessing.std))
        bands = (image * std + mean).clamp(0, 1)
        return (bands[:3] if len(bands) >= 3 else bands[:1].expand(3, -1, -1)).permute(1, 2, 0)
