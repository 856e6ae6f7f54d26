"""One small component of every kind, as a plugin file of plain classes; the tests load it with ``--plugin``."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sslkit.clock import Clock
from sslkit.contracts import (
    START,
    Backbone,
    Callback,
    CollapseOperator,
    Evaluator,
    Head,
    ImageSource,
    Loss,
    Optimizer,
    Predictor,
    TeacherUpdate,
    ViewMaker,
)
from sslkit.errors import DataError
from sslkit.schedules import Cosine, Schedule
from sslkit.types import EvaluationData, Features, Projection, Sample, Targets, Views


class TinyBackbone(Backbone):
    """A mean over pixels and a linear layer.

    Args:
        width: F, at least 1.
        in_chans: channels of the images.
        patch_size: what view sizes are multiples of.
    """

    def __init__(self, width: int = 8, in_chans: int = 3, patch_size: int | None = 4) -> None:
        super().__init__()
        if width < 1:
            raise ValueError(f"width is at least 1, not {width}")
        self.embed_dim, self.in_chans, self.patch_size = width, in_chans, patch_size
        self.linear = nn.Linear(in_chans, width)

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        return Features(self.linear(images.mean((2, 3))))


class FixedBackbone(TinyBackbone):
    """A backbone for images of one size.

    Args:
        size: their side.
    """

    def __init__(self, size: int = 8, in_chans: int = 3) -> None:
        super().__init__(in_chans=in_chans, patch_size=None)
        self.size = size

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        assert images.shape[-1] == self.size, f"takes {self.size} px alone"
        return super().forward(images)


class TinyHead(Head):
    """Two linear layers."""

    def __init__(self, in_dim: int, num_prototypes: int | None = 16, embed_dim: int = 4) -> None:
        super().__init__()
        self.projector = nn.Linear(in_dim, embed_dim)
        self.prototypes = nn.Linear(embed_dim, num_prototypes, bias=False) if num_prototypes else None
        self.embed_dim, self.num_prototypes = embed_dim, num_prototypes


class NormHead(TinyHead):
    """A head with a batch norm.

    Args:
        fails: whether a forward pass raises an error.
    """

    def __init__(self, in_dim: int, num_prototypes: int | None = 16, embed_dim: int = 4, fails: bool = False) -> None:
        super().__init__(in_dim, num_prototypes, embed_dim)
        self.projector = nn.Sequential(self.projector, nn.BatchNorm1d(embed_dim), Failing() if fails else nn.Identity())


class Failing(nn.Module):
    """A module that fails."""

    def forward(self, rows: Tensor) -> Tensor:
        raise RuntimeError("as it was told")


class TinyPredictor(Predictor):
    """A linear layer."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, projection: Tensor) -> Tensor:
        return self.linear(projection)


class TinyTeacher(TeacherUpdate):
    """Follows at once.

    Args:
        momentum: shown in the log, a number or a schedule.
    """

    def __init__(self, momentum: float | Schedule = Cosine(0.9, 1.0)) -> None:  # noqa: B008
        self.momentum = momentum

    def metrics(self, clock: Clock) -> Mapping[str, float]:
        return {"teacher_momentum": self.momentum(clock) if isinstance(self.momentum, Schedule) else self.momentum}


class OtherTeacher(TeacherUpdate):
    """Never follows."""

    def __init__(self, patience: int = 1) -> None:
        self.patience = patience


class TinyOperator(CollapseOperator):
    """Softmax of the logits."""

    def __init__(self, num_prototypes: int, temperature: float | Schedule | None = 0.1) -> None:
        super().__init__()
        self.num_prototypes, self.temperature = num_prototypes, temperature

    def forward(self, teacher: Projection, clock: Clock = START) -> Targets:
        assert teacher.logits is not None
        return Targets(teacher.logits.softmax(-1), "probabilities", teacher.view_ids)


class TinyLoss(Loss):
    """Nothing at all."""

    accepts = frozenset({"probabilities"})

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, student: Projection, targets: Targets) -> Tensor:
        return student.embedding.sum() * 0


class TinyViews(ViewMaker):
    """Random views."""

    def __init__(
        self,
        size: int = 8,
        num_local: int = 2,
        scale: tuple[float, float] = (0.4, 1.0),
        channels: int = 3,
        mean: Sequence[float] = (0.5, 0.5, 0.5),
    ) -> None:
        self.num_globals, self.sizes = 2, [size] * 2 + [size // 2] * num_local
        self.scale, self.channels, self.mean = scale, channels, mean

    def prepare(self, sample: Sample, epoch: int, seed: int) -> tuple[Tensor, ...]:
        return (sample.image,)

    def make(self, prepared: Sequence[Tensor], keys: Tensor, epoch: int, seed: int) -> Views:
        return Views.of([torch.zeros(len(keys), self.channels, size, size) for size in self.sizes])


class TinyImages(ImageSource):
    """Black images.

    Args:
        path: any word but ``nowhere``.
        split: which part.
        num_images: how many.
        channels: of every image.
    """

    def __init__(self, path: str = "here", split: str = "train", num_images: int = 32, channels: int = 3) -> None:
        if path == "nowhere":
            raise DataError(f"there are no images in {path}")
        self.name, self.path, self.split, self.channels = path, path, split, channels
        self.keys = torch.arange(num_images)

    def read(self, index: int) -> Sample:
        return Sample(torch.zeros(self.channels, 8, 8), index)


class TinyOptimizer(Optimizer):
    """Plain gradient descent."""

    def __init__(self, betas: tuple[float, float] = (0.9, 0.999)) -> None:
        self.betas = betas

    def build(self, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD([dict(group) for group in groups], lr=0.1)


class TinySchedule(Schedule):
    """A number that is the step."""

    def __call__(self, clock: Clock) -> float:
        return clock.step


class TinyEvaluator(Evaluator):
    """Measures nothing."""

    command = "tiny"
    protocol = "tiny/1"

    def __init__(self, k: int = 5, **words: Any) -> None:
        self.k, self.words = k, words

    def run(self, backbone: Backbone, data: EvaluationData) -> Iterator[tuple[str, float]]:
        yield "tiny/one", 1.0


class TinyCallback(Callback):
    """Watches nothing."""

    def __init__(self, every: int = 1) -> None:
        self.every = every
