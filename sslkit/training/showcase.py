"""What a person wants to see of a run."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor

from sslkit.evaluate import evaluation_data
from sslkit.evaluators.features import frozen
from sslkit.types import Views

if TYPE_CHECKING:
    from sslkit.training.loop import Run


@dataclass(frozen=True)
class Looks:
    """Images as evaluators see them, and what the teacher sees in them, on the CPU.

    Args:
        images: (N, C, H, W), normalised.
        features: (N, F) of the teacher's backbone.
        labels: (N,), or None.
    """

    images: Tensor
    features: Tensor
    labels: Tensor | None


class Showcase:
    """Images, views and features of a run, for pictures.

    Args:
        run: the run, at whatever step it stands.
    """

    def __init__(self, run: "Run") -> None:
        self.run = run

    def sample_views(self, count: int) -> Views:
        """Return the views of the first ``count`` images of the first epoch, on the CPU."""
        batch = self.run.batches()[0]
        views = self.run.make_views(batch, epoch=0).narrow(0, count)
        return Views(tuple(group._replace(images=group.images.cpu()) for group in views.groups), views.num_globals)

    def looks(self, part: Literal["train", "test"], limit: int) -> Looks:
        """Return at most ``limit`` images, evenly spread over that part of the data."""
        run, section = self.run, self.run.parts.evaluation
        train, test = run.parts.data.train, run.parts.data.test or run.parts.data.train
        data = evaluation_data(train, test, run.statistics, section.batch_size, run.device, limit=limit)
        backbone = run.model.teacher.backbone
        seen = []
        with frozen(backbone):
            for images, labels in getattr(data, part).batches():
                seen.append((images.cpu(), backbone(images).cls.float().cpu(), labels))
        images, features, labels = zip(*seen, strict=True)
        whole = None if labels[0] is None else torch.cat(labels).cpu()
        return Looks(torch.cat(images), torch.cat(features), whole)

    def as_picture(self, image: Tensor) -> Tensor:
        """Undo the normalisation of (C, H, W): (H, W, 3) in 0..1; of more bands the first three are shown."""
        statistics = self.run.statistics
        mean, std = (torch.tensor(values)[:, None, None] for values in (statistics.mean, statistics.std))
        bands = (image * std + mean).clamp(0, 1)
        return (bands[:3] if len(bands) >= 3 else bands[:1].expand(3, -1, -1)).permute(1, 2, 0)
