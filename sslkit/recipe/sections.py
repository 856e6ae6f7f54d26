"""The sections of a recipe and their keys, as dataclasses.

`method`, `views`, `data`, `optimization`, `precision` and `seed` determine what a run learns. `runtime` changes speed
and rounding only; `evaluation` does not affect training.
"""

import math
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

from sslkit.clock import Clock, Duration
from sslkit.contracts import (
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
from sslkit.errors import RecipeError
from sslkit.method.batch_norm import BatchNormImages
from sslkit.schedules import Constant, Schedule, levels_of
from sslkit.types import IMAGENET_MEAN, IMAGENET_STD, ViewChoice

StudentPart = Literal["backbone", "projector", "predictor", "prototypes"]
Network = Literal["teacher", "student"]


@dataclass
class InitFrom:
    """Initial weights of the backbones of student and teacher; short form ``init_from: WEIGHTS``.

    Args:
        weights: timm:NAME, hf-hub:OWNER/NAME, a run, an exported folder, or a .safetensors or .pth file.
        network: teacher or student, if the source has both; null for the one that its method is evaluated by.
        partial: prefixes of names, e.g. [blocks.11], of weights that may be missing, unused or of another shape; those
            of the backbone are then initialised randomly.
        heads: whether projector, prototypes and predictor start from the same run too, instead of randomly; of a file
            of DINO, MoCo or SwAV the head, and the center.
        fingerprint: hash of the weights; others are refused. The recipe.yaml of a run has it.
    """

    weights: str
    network: Network | None = None
    partial: list[str] = field(default_factory=list)
    heads: bool = False
    fingerprint: str | None = None


@dataclass
class Method:
    """The components of the training step.

    Args:
        backbone: images to features.
        head: features to embeddings and, with prototypes, to logits.
        teacher: how the teacher follows the student.
        collapse: turns teacher outputs into targets; null for the teacher outputs themselves.
        loss: what the student minimises.
        predictor: a network of the student alone, after the projector; null for none.
        init: whether the teacher starts as a copy of the student or with independently drawn weights.
        student_views: all, globals, or a list of view ids.
        teacher_views: all, globals, or a list of view ids.
        separate_views: whether each view passes the networks separately, so that batch norms take their statistics from
            one view, as in the published code of BYOL and MoCo, instead of from all views of a resolution.
        batch_norm: the images whose statistics a batch norm takes: synchronized for those of all processes (on GPUs),
            local for those of each process, or a number, such as 32, for groups of so many images, grouped otherwise
            in the teacher (instead of MoCo's shuffled batch norm).
        init_from: initial weights, timm:NAME, a run or a file; null to draw them.
    """

    backbone: Backbone
    head: Head
    teacher: TeacherUpdate
    collapse: CollapseOperator | None
    loss: Loss
    predictor: Predictor | None = None
    init: Literal["copy", "independent"] = "copy"
    student_views: ViewChoice = "all"
    teacher_views: ViewChoice = "globals"
    separate_views: bool = False
    batch_norm: BatchNormImages = "synchronized"
    init_from: InitFrom | None = None

    def __post_init__(self) -> None:
        _at_least(2, "method", self, "batch_norm")


@dataclass
class Data:
    """The images and their preprocessing; the short form ``data: FOLDER`` sets ``path`` of train and test.

    Args:
        train: the images to train on.
        test: the images that evaluators measure on, with the arguments that differ from train; null for none.
        num_images: number of training images that the recipe is written for; `sslkit explain` uses it if the images are
            not available.
        channels: channels of every image.
        mean: subtracted from each channel of images in 0..1.
        std: divides each channel after that.
        value_range: lowest and highest value of a channel; null for those of the images' dtype.
        max_pixels: width times height of the largest image to decode, against small files that hold billions of pixels;
            larger ones are unreadable. Scans and slides may need more.
    """

    train: ImageSource
    test: ImageSource | None = None
    num_images: int | None = None
    channels: int = 3
    mean: list[float] = field(default_factory=lambda: list(IMAGENET_MEAN))
    std: list[float] = field(default_factory=lambda: list(IMAGENET_STD))
    value_range: list[float] | None = None
    max_pixels: int = 178_956_970

    def __post_init__(self) -> None:
        _at_least(1, "data", self, "num_images", "channels", "max_pixels")
        for name in ("mean", "std"):
            if len(getattr(self, name)) != self.channels:
                raise RecipeError(
                    f"data.{name} has {len(getattr(self, name))} values, but data.channels is {self.channels}"
                )
            if not all(map(math.isfinite, getattr(self, name))):
                raise RecipeError(f"data.{name} is finite numbers, not {getattr(self, name)}")
        if min(self.std) <= 0:
            raise RecipeError(f"data.std is above 0 in every channel, not {self.std}")
        ends = self.value_range
        if ends is not None and not (len(ends) == 2 and -math.inf < ends[0] < ends[1] < math.inf):
            raise RecipeError(f"data.value_range is the value of black and that of white, which is larger, not {ends}")


@dataclass
class Optimization:
    """Optimizer, batch size, length and schedules of training.

    Args:
        optimizer: updates the parameters of the student.
        batch_size: images in a step, over all processes.
        epochs: passes over the images; may be a fraction.
        lr: learning rate, a number or a schedule.
        steps: optimizer steps to train for, instead of epochs.
        lr_reference_batch: the batch size that lr is given for; its peak is multiplied by batch_size over this.
        weight_decay: a number or a schedule.
        clip_grad_norm: largest gradient norm, or null.
        clip_per: whether the norm of each parameter is clipped, or that of all together.
        freeze: how long parts of the student are frozen at the start, e.g. {prototypes: 1 epochs}; parts are
            backbone, projector, predictor, prototypes. Null for not at all, to override a base recipe.
        lr_scale: factors of the learning rate of parts, e.g. {backbone: 0.1}; null for 1.
    """

    optimizer: Optimizer
    batch_size: int
    epochs: float
    lr: float | Schedule
    steps: int | None = None
    lr_reference_batch: int | None = None
    weight_decay: float | Schedule = 0.0
    clip_grad_norm: float | None = None
    clip_per: Literal["parameter", "all"] = "parameter"
    freeze: dict[StudentPart, str | None] = field(default_factory=dict)
    lr_scale: dict[StudentPart, float | None] = field(default_factory=dict)

    def __post_init__(self) -> None:
        _at_least(1, "optimization", self, "batch_size", "steps", "lr_reference_batch")
        _above_zero("optimization", self, "epochs", "clip_grad_norm")
        _at_least(0, "optimization", self, "lr", "weight_decay")
        for part, duration in self.freeze.items():
            if duration is not None:
                _duration(f"optimization.freeze.{part}", duration)
        for part, scale in self.lr_scale.items():
            if scale is not None and not 0 < scale < math.inf:
                raise RecipeError(
                    f"optimization.lr_scale.{part} is above 0, not {scale}; optimization.freeze keeps a part still"
                )

    @property
    def freezes(self) -> dict[StudentPart, Duration]:
        """The durations for which parts are frozen at the start."""
        return {part: Duration.parse(duration) for part, duration in self.freeze.items() if duration is not None}

    @property
    def learning_rate(self) -> Schedule:
        """The learning rate with its peak scaled to the batch size."""
        lr = self.lr if isinstance(self.lr, Schedule) else Constant(self.lr)
        return lr.scaled(self.batch_size / self.lr_reference_batch) if self.lr_reference_batch else lr

    def clock(self, num_images: int) -> Clock:
        """Return the clock of a run at its first step; an incomplete last batch of an epoch is dropped.

        Args:
            num_images: training images.
        """
        # At least one step, so that nothing divides by 0; fewer images than a batch are refused before training.
        steps_per_epoch = max(1, num_images // self.batch_size)
        total = self.steps if self.steps is not None else round(self.epochs * steps_per_epoch)
        return Clock(0, max(1, total), steps_per_epoch)


@dataclass
class Runtime:
    """Execution of a run: device, processes, logging and checkpoints.

    Args:
        device: auto, cpu, cuda, mps.
        num_workers: processes that load images; null chooses by the CPU cores.
        accumulation: micro-batches that each process splits its batch into, to save memory.
        log_every: steps between two rows of metrics.jsonl.
        rank_every: steps between two rows with the effective rank, which needs singular values.
        on_collapse: whether a run that fails (docs/doctor.md) continues with a warning, stops, or is not diagnosed.
        checkpoint_every: time between two checkpoints.
        keep_checkpoints: number of newest checkpoints to keep.
        compile: whether to compile the networks.
        checkpoint_activations: whether the student's backbone recomputes its activations in the backward pass, which
            takes less memory and more time.
        unreadable_limit: the share of unreadable images above which the run stops, in [0, 1].
        skip_limit: number of consecutive steps skipped for a number that is not finite, at which the run stops.
        roll_backs: how often the run instead continues from the checkpoint before them, without their images.
        threads: CPU threads of torch; null for torch's default.
        callbacks: called at the events of a run.
        trackers: accelerate's trackers that get the metrics of the run in addition to metrics.jsonl, by name, or with
            arguments as {wandb: {project: mine}}.
    """

    device: str = "auto"
    num_workers: int | None = None
    accumulation: int = 1
    log_every: int = 10
    rank_every: int = 100
    on_collapse: Literal["warn", "stop", "ignore"] = "warn"
    checkpoint_every: str = "1 epochs"
    keep_checkpoints: int = 2
    compile: bool = False
    checkpoint_activations: bool = False
    unreadable_limit: float = 0.01
    skip_limit: int = 10
    roll_backs: int = 0
    threads: int | None = None
    callbacks: list[Callback] = field(default_factory=list)
    trackers: list[str | dict[str, dict[str, Any]]] = field(default_factory=list)

    def __post_init__(self) -> None:
        _interval("runtime.checkpoint_every", self.checkpoint_every)
        _at_least(0, "runtime", self, "num_workers", "unreadable_limit", "roll_backs")
        for name, most in (("num_workers", 1024), ("threads", 4096)):
            if (getattr(self, name) or 0) > most:
                raise RecipeError(f"runtime.{name} is at most {most}, not {getattr(self, name)}")
        if self.unreadable_limit > 1:
            raise RecipeError(f"runtime.unreadable_limit is a share, at most 1, not {self.unreadable_limit}")
        _at_least(
            1, "runtime", self, "accumulation", "log_every", "rank_every", "keep_checkpoints", "skip_limit", "threads"
        )


@dataclass
class Evaluation:
    """Evaluation of the backbones during a run and at its end.

    Args:
        every: time between two evaluations; null evaluates at the end only.
        evaluators: what to measure.
        networks: the networks whose backbone is evaluated: teacher, student, or both.
        baselines: what is evaluated too, before the first step: raw-pixels, untrained; null for those that take little
            time beside the run.
        resize: the short side that images are resized to first, in pixels; null for view_size over crop_pct.
        view_size: the side of the centre crop, in pixels; null for the size of the global views.
        batch_size: images per forward pass.
        crop_pct: the share of the resized short side that the centre crop takes, instead of resize: 0.875 is 224 of
            256; null is all of it.
    """

    every: str | None = None
    evaluators: list[Evaluator] = field(default_factory=list)
    networks: list[Network] = field(default_factory=lambda: list(get_args(Network)))
    baselines: list[str] | None = None
    resize: int | None = None
    view_size: int | None = None
    batch_size: int = 64
    crop_pct: float | None = None

    def __post_init__(self) -> None:
        if self.every is not None:
            _interval("evaluation.every", self.every)
        _at_least(1, "evaluation", self, "batch_size", "view_size", "resize")
        if self.crop_pct is not None and not 0 < self.crop_pct <= 1:
            raise RecipeError(f"evaluation.crop_pct is above 0 and at most 1, not {self.crop_pct}")
        if self.crop_pct is not None and self.resize is not None:
            raise RecipeError(
                f"evaluation.resize {self.resize} and evaluation.crop_pct {self.crop_pct} both choose the resized "
                "side. Add one of\n  --evaluation.resize null\n  --evaluation.crop_pct null"
            )
        if self.resize is not None and self.view_size is not None and self.resize < self.view_size:
            raise RecipeError(
                f"evaluation.resize is at least evaluation.view_size, {self.view_size}, not {self.resize}: the view is "
                "cut out of the resized image"
            )


@dataclass
class BuiltRecipe:
    """A whole recipe: its sections, with every component built.

    Args:
        method: the components of the training step.
        views: makes the views of an image.
        data: the images and their preprocessing.
        optimization: optimizer, batch size, length and schedules.
        precision: of the networks; auto for bf16 where the device has instructions for it, otherwise fp32.
        seed: of all random numbers, in [0, 2**63 - 1].
        runtime: device, processes, logging and checkpoints.
        evaluation: evaluators, and when they run.
    """

    method: Method
    views: ViewMaker
    data: Data
    optimization: Optimization
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)
    evaluation: Evaluation = field(default_factory=Evaluation)

    def __post_init__(self) -> None:
        if not 0 <= self.seed < 2**63:
            raise RecipeError(f"seed is between 0 and 2**63 - 1, not {self.seed}")


def _at_least(least: int, section: str, values: object, *names: str) -> None:
    """Raise an error for attributes that are numbers, or schedules with levels, below ``least`` or not finite."""
    for name in names:
        for key, value in levels_of(name, getattr(values, name)).items():
            if not least <= value < math.inf:
                finite = "" if value < least else " and finite"
                raise RecipeError(f"{section}.{key} is at least {least}{finite}, not {value}")


def _above_zero(section: str, values: object, *names: str) -> None:
    for name in names:
        value = getattr(values, name)
        if value is not None and not 0 < value < math.inf:
            raise RecipeError(f"{section}.{name} is above 0, not {value}")


def _duration(key: str, text: str) -> Duration:
    try:
        return Duration.parse(text)
    except RecipeError as error:
        raise RecipeError(f"{key}: {error}") from None


def _interval(key: str, text: str) -> None:
    if not _duration(key, text).amount:
        raise RecipeError(f"{key} is longer than nothing, not {text!r}")
