"""The contracts of components: the abstract classes that plugins and built-in components extend.

Letters as in `sslkit.types`. Each class here is abstract; the components that ship lie in the packages named after
them and are registered by `sslkit.builtin`, through the hooks that plugins use.
"""

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from sslkit.clock import Clock
from sslkit.errors import NotSupported
from sslkit.recommendation import ANY_FAILURE, Component, Recommendation, RunContext
from sslkit.types import (
    EvaluationData,
    Features,
    ImageFeatures,
    Preprocessing,
    Projection,
    Sample,
    TargetKind,
    Targets,
    Views,
)

START = Clock()


class Backbone(nn.Module, Component, ABC):
    """A network from images to features.

    Attributes:
        embed_dim: F, the length of ``Features.cls``.
        patch_size: pixels on a patch's side; view sizes must be multiples of it. None where any size will do.
        in_chans: channels of the images it takes.
        recomputes: whether a backward pass runs parts of the forward pass again, which then write to buffers again.
    """

    embed_dim: int
    patch_size: int | None = None
    in_chans: int = 3
    recomputes: bool = False

    def __setattr__(self, name: str, value: Any) -> None:
        # torch keeps modules where the class's own method of that name would hide them.
        if isinstance(value, nn.Module) and callable(getattr(type(self), name, None)):
            raise AttributeError(
                f"{type(self).__name__}.{name}: every backbone has a method of that name; choose another"
            )
        super().__setattr__(name, value)

    @abstractmethod
    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Return the features of images (N, C, H, W).

        Args:
            images: normalised images.
            mask: (N, P), true where a patch is hidden.

        Raises:
            NotSupported: a mask was given and this backbone cannot hide patches.
        """

    def layers(self, images: Tensor, n: int) -> list[Features]:
        """Return the features of the last ``n`` blocks, the last block last."""
        raise NotSupported(f"{type(self).__name__} does not offer the features of its single layers")

    def attention(self, images: Tensor) -> Tensor:
        """Return the last block's attention of the class token to the patches, (N, heads, H/p, W/p)."""
        raise NotSupported(f"{type(self).__name__} has no attention")

    def checkpoint_activations(self) -> None:
        """Recompute the activations of the blocks in the backward pass from now on, instead of storing them.

        Results stay the same if the caller restores the buffers after the backward pass (the statistics of batch norms
        move a second time), as `train_step` does for a backbone that ``recomputes``.

        Raises:
            NotSupported: it has no such blocks.
        """
        raise NotSupported(f"{type(self).__name__} cannot compute its activations again")

    def named_weights(self) -> dict[str, Tensor]:
        """Return parameters and buffers by the names that other programs know them by; writing to one changes it."""
        return self.state_dict()

    def resampled(self, name: str, weight: Tensor) -> Tensor:
        """Return one of ``named_weights`` that comes from elsewhere in its shape here, or as it is where that is not
        known: positions of another resolution, kernels of another patch size or number of channels.
        """
        return weight

    def save(self, folder: Path, preprocessing: Preprocessing | None = None) -> None:
        """Write weights as safetensors and a config.json that suffice to load this backbone again.

        Args:
            folder: where to.
            preprocessing: of its images, for other programs that read config.json; None leaves it out.
        """
        raise NotSupported(f"{type(self).__name__} cannot be saved by itself")

    @classmethod
    def load(cls, folder: Path) -> "Backbone":
        """Load what ``save`` wrote; config.json names the class as ``{"sslkit": {"backbone": ...}}``."""
        raise NotSupported(f"{cls.__name__} cannot be loaded by itself")


class Head(nn.Module, Component, ABC):
    """A projector and, in methods that have them, prototypes.

    Attributes:
        in_dim: F, or None where it fits any; a backbone of another F is refused.
        projector: (N, F) to (N, D).
        prototypes: (N, D) to (N, K), or None.
        embed_dim: D.
        num_prototypes: K, or None.
        normalize: whether the embedding is l2-normalised between projector and prototypes.
    """

    in_dim: int | None = None
    projector: nn.Module
    prototypes: nn.Module | None  # set in __init__: a class attribute would hide the registered module
    embed_dim: int
    num_prototypes: int | None = None
    normalize: bool = True

    def before_step(self) -> None:
        """Run without gradient on the student's head at the start of every step (SwAV re-normalises prototypes)."""


class Predictor(nn.Module, Component, ABC):
    """A network of the student alone, from projections (N, D) to predictions (N, D).

    Attributes:
        dim: D, or None where it fits any; a head of another D is refused.
    """

    dim: int | None = None

    @abstractmethod
    def forward(self, projection: Tensor) -> Tensor:
        """Predict the teacher's projection from the student's."""


class TeacherUpdate(Component, ABC):
    """A rule by which the teacher's parameters follow the student's; buffers stay the teacher's own."""

    shares_weights: ClassVar[bool] = False
    """Whether the teacher is the student itself rather than a second network."""

    def before_step(self, student: nn.Module, teacher: nn.Module, clock: Clock = START) -> None:
        """Run after the gradients and before the optimizer."""

    def after_step(self, student: nn.Module, teacher: nn.Module, clock: Clock = START) -> None:
        """Run after the optimizer and after the collapse operator's update.

        Args:
            student: the branch that learned.
            teacher: the branch that follows; each of its parameters has a namesake in the student.
            clock: the step just taken.
        """

    def metrics(self, clock: Clock) -> Mapping[str, float]:
        """Return numbers for the log."""
        return {}


class CollapseOperator(nn.Module, Component, ABC):
    """An operator that turns teacher outputs into targets, and keeps the networks from collapse.

    State is a buffer; it is read in ``forward`` and written in ``update``, so that ``forward`` called twice
    returns the same.

    Attributes:
        num_prototypes: K of its state, if that has one; a head of another K is refused.
        embed_dim: D of its state, likewise.
    """

    num_prototypes: int | None = None
    embed_dim: int | None = None

    reads: ClassVar[TargetKind] = "logits"
    """What it needs of the teacher: ``logits`` (a head with prototypes) or ``embedding``."""

    @property
    def yields(self) -> TargetKind:
        """What its targets are."""
        return "probabilities"

    @property
    def gives_negatives(self) -> bool:
        """Whether its targets carry negatives."""
        return False

    @abstractmethod
    def forward(self, teacher: Projection, clock: Clock = START) -> Targets:
        """Return the targets of this process's whole batch; sums and means go over all processes."""

    def update(self, teacher: Projection, clock: Clock = START) -> None:
        """Update the state, once in each optimizer step, with this process's whole batch."""

    def check(self, num_views: int, batch_size: int) -> None:
        """Refuse, before the first step, what the state does not fit.

        Args:
            num_views: views that the teacher sees.
            batch_size: images in a step, in this process.

        Raises:
            RecipeError: naming the argument, and the override that resolves it.
        """

    def metrics(self, clock: Clock) -> Mapping[str, float | Tensor]:
        """Return numbers for the log; tensors of one element are read when the log is written."""
        return {}


class Loss(nn.Module, Component, ABC):
    """A loss between student outputs and targets, without state."""

    accepts: ClassVar[frozenset[TargetKind]]
    """The kinds of targets it can take."""

    needs_negatives: bool = False
    """Whether it reads negatives, which the targets must then carry."""

    couples_batch: bool = False
    """Whether one image's gradient depends on the batch's other images; refuses gradient accumulation."""

    @abstractmethod
    def forward(self, student: Projection, targets: Targets) -> Tensor:
        """Return a scalar, the mean over images and pairs of different views."""

    def log_probabilities(self, student: Projection) -> Tensor | None:
        """Return the student's log-probabilities over prototypes as this loss sees them, for the log, or None."""
        return None

    def chance(self, student: Projection, targets: Targets) -> float | None:
        """Return the loss of a student whose outputs do not depend on the images, for the log, or None."""
        return None


class Optimizer(Component, ABC):
    """The hyper-parameters of an optimizer, which is built once the parameters exist.

    Attributes:
        decays_vectors: whether weight decay also acts on biases and one-dimensional parameters.
        published_lr: the lowest and the highest peak of the learning rate that has been published with it, or None;
            ten times less or more is called unlikely.
        published_by: where.
    """

    decays_vectors: bool = False
    published_lr: ClassVar[tuple[float, float] | None] = None
    published_by: ClassVar[str] = ""

    @abstractmethod
    def build(self, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
        """Return the torch optimizer of these parameter groups; the loop sets lr and weight decay each step."""

    def recommend(self, context: RunContext) -> Iterable[Recommendation]:
        if self.published_lr is None:
            return
        low, high = self.published_lr
        # One that is 0 is reported whatever the optimizer (`sslkit.explain.rates`).
        if context.learning_rate and not low / 10 <= context.learning_rate <= high * 10:
            yield Recommendation(
                f"a learning rate that peaks at {context.learning_rate:.3g} is unlikely with {type(self).__name__}: "
                f"published ones peak at {low:g} to {high:g}",
                self.published_by,
                leads_to=("not learning",) if context.learning_rate < low else ANY_FAILURE,
                remedy={"optimization.lr": self.usual_lr},
            )

    @property
    def usual_lr(self) -> float | None:
        """The geometric mean of the published learning rates, to one digit; None where none is known."""
        return float(f"{math.prod(self.published_lr) ** 0.5:.1g}") if self.published_lr else None


class ImageSource(ABC):
    """A data set with random access: an index of keys and labels, and a decoder.

    Attributes:
        name: what the images are, for people.
        channels: C of every image.
        keys: (N,) int64, one stable key an image.
        labels: (N,) int64, or None where images have no labels.
        class_names: the classes, or None.
        in_memory: whether reading costs next to nothing, so that no worker processes are needed.
    """

    name: str
    channels: int = 3
    keys: Tensor
    labels: Tensor | None = None
    class_names: Sequence[str] | None = None
    in_memory: bool = False

    def __len__(self) -> int:
        return len(self.keys)

    @abstractmethod
    def read(self, index: int) -> Sample:
        """Decode image ``index``.

        Raises:
            UnreadableImage: it is damaged, empty, or has bands that the decoder would drop.
        """

    def name_of(self, index: int) -> str:
        """Return the file or row of image ``index``, for messages."""
        return f"{self.name}, image {index}"

    def place_of(self, index: int) -> str:
        """Return the file of image ``index`` relative to the folder of the images, or its row in their table."""
        return f"row {index}"

    def places(self, keys: Sequence[int]) -> list[str]:
        """Return the files or rows of the images with these keys, in the same order; empty for a key of no image."""
        wanted = {*keys}
        found = {key: self.place_of(i) for i, key in enumerate(self.keys.tolist()) if key in wanted}
        return [found.get(key, "") for key in keys]

    def summary(self) -> str:
        """Return one line on what was found and what was left out, for the start of a run; empty for nothing to say."""
        return ""

    def fingerprint(self) -> str:
        """Return a hash of the index that does not depend on where the images lie."""
        labels = b"" if self.labels is None else self.labels.numpy().tobytes()
        return hashlib.sha256(self.keys.numpy().tobytes() + labels).hexdigest()[:16]


class ViewMaker(Component, ABC):
    """A maker of the views of an image that student and teacher see.

    A loader's worker calls ``prepare`` on each sample; the training process calls ``make`` on the batch. What is
    random about an image depends on (seed, epoch, its key, the view) alone.

    Attributes:
        num_globals: how many views are global; their ids come first.
        sizes: the side of each view in pixels, by view id.
        channels: channels of the images it was built for.
        prepares_cheaply: whether ``prepare`` costs next to nothing, so that it alone needs no worker processes.
    """

    num_globals: int
    sizes: Sequence[int]
    channels: int = 3
    prepares_cheaply: bool = False

    @abstractmethod
    def prepare(self, sample: Sample, epoch: int, seed: int) -> tuple[Tensor, ...]:
        """Prepare one image in a loading worker: return tensors whose shapes are the same for every image."""

    @abstractmethod
    def make(self, prepared: Sequence[Tensor], keys: Tensor, epoch: int, seed: int) -> Views:
        """Return the views of a batch, normalised, on the device of ``prepared``.

        Args:
            prepared: the tensors of ``prepare``, each stacked to (B, ...).
            keys: (B,) int64 sample keys, on the CPU.
            epoch: the pass over the data.
            seed: the run's seed.
        """

    def __call__(
        self, images: Iterable[Tensor], keys: Tensor | Sequence[int] | None = None, epoch: int = 0, seed: int = 0
    ) -> Views:
        """Return the views of images that no loader prepared: for a loop of one's own.

        Args:
            images: B images (C, H, W) as their source gives them, or one tensor of them.
            keys: (B,) whole numbers, each an image's own for good, such as its index; not its label, which other
                images have too and with it the same crops and colours. None draws new ones from torch's generator.
            epoch: the pass over the data; the same image has other views in another epoch.
            seed: the run's seed.

        Raises:
            DataError: images that these views cannot be made of.
            ValueError: no images, or keys that are not one whole number an image.
        """
        images = list(images)
        if not images:
            raise ValueError("views are made of at least one image")
        keys = torch.as_tensor(torch.randint(2**63 - 1, (len(images),)) if keys is None else keys).cpu()
        if keys.shape != (len(images),) or keys.is_floating_point():
            raise ValueError(
                f"keys are one whole number an image, ({len(images)},), not {keys.dtype} {tuple(keys.shape)}"
            )
        samples = [Sample(image, key) for image, key in zip(images, keys.tolist(), strict=True)]
        prepared = [self.prepare(sample, epoch, seed) for sample in samples]
        return self.make([torch.stack(parts) for parts in zip(*prepared, strict=True)], keys, epoch, seed)


class Evaluator(ABC):
    """An evaluation of a frozen backbone, which returns metrics.

    Attributes:
        command: its name on the command line.
        protocol: name and version of what is measured, printed and stored with each number.
        needs_labels: whether it is skipped for unlabelled images.
    """

    command: ClassVar[str]
    protocol: str
    needs_labels: ClassVar[bool] = True

    @abstractmethod
    def run(self, backbone: Backbone, data: EvaluationData) -> Iterable[tuple[str, float]]:
        """Yield metric names ("knn/top1@20") and values; accuracies are in percent."""


class Network(Protocol):
    """The student or the teacher of a run, as callbacks read it."""

    backbone: Backbone
    head: Head
    predictor: Predictor | None


class VisualizationData(Protocol):
    """Images, views and features of a run, for pictures."""

    def sample_views(self, count: int) -> Views:
        """Return the views of the first ``count`` images of the first epoch, on the CPU."""

    def image_features(self, part: Literal["train", "test"], limit: int) -> ImageFeatures | None:
        """Return at most ``limit`` images of that part with the teacher's features, always the same ones; None where
        the recipe names no such images.
        """

    def as_picture(self, image: Tensor) -> Tensor:
        """Undo the normalisation of (C, H, W): (H, W, 3) in 0..1; of more channels the first three are shown."""


class TrainingRun(Protocol):
    """A run in progress, as callbacks read it; ``interrupted`` alone may be set.

    Attributes:
        interrupted: whether it stops after the step that it is in, with everything saved.
    """

    interrupted: bool

    @property
    def name(self) -> str:
        """The name of the recipe."""

    @property
    def run_dir(self) -> Path:
        """The run folder."""

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes; every process runs the callbacks."""

    @property
    def clock(self) -> Clock:
        """The step about to be taken, or in ``on_step_end`` just taken, and the length of the run."""

    @property
    def device(self) -> torch.device:
        """Where the networks are."""

    @property
    def student(self) -> Network:
        """The network that learns."""

    @property
    def teacher(self) -> Network:
        """The network that follows; the student itself with `Copy`."""

    @property
    def metrics(self) -> Sequence[Mapping[str, float]]:
        """The rows of metrics.jsonl."""

    @property
    def results(self) -> Sequence[Mapping[str, Any]]:
        """The rows of results.json."""

    @property
    def visualization(self) -> VisualizationData:
        """Images, views and features for pictures."""


class Callback(ABC):
    """Code that runs at moments of a run: a recipe names it in ``runtime.callbacks``.

    The hooks fire in this order and return nothing. What a hook reads of the run is a `TrainingRun`.
    """

    def on_run_start(self, run: TrainingRun) -> None:
        """Fire once, before the first step, on every process."""

    def on_step_end(self, run: TrainingRun, metrics: Mapping[str, float]) -> None:
        """Fire after each logged step, with the row of metrics.jsonl."""

    def on_evaluate_end(self, run: TrainingRun, results: Sequence[Mapping[str, Any]]) -> None:
        """Fire after an evaluation, with its rows of results.json."""

    def on_checkpoint(self, run: TrainingRun, folder: Path) -> None:
        """Fire after a checkpoint was written."""

    def on_run_end(self, run: TrainingRun) -> None:
        """Fire once, after the last step or an interruption."""
