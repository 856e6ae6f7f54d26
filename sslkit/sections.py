"""The sections of a recipe, filled: what the parser builds and what a run is made of.

`sslkit.recipe` reads these classes for the keys, types and defaults of a recipe; `sslkit.training` runs them.
"""

from dataclasses import dataclass, field
from typing import Literal

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
from sslkit.schedules import Schedule
from sslkit.types import ViewChoice

IMAGENET_MEAN = [0.485, 0.456, 0.406]
IMAGENET_STD = [0.229, 0.224, 0.225]


@dataclass
class Method:
    """The slots of the student-teacher step.

    Args:
        backbone: images to features.
        head: features to embeddings and, with prototypes, to logits.
        teacher: how the teacher follows the student.
        collapse: teacher outputs to targets; null hands the teacher's embeddings on as they are.
        loss: the distance from the student to the targets.
        predictor: a network that only the student has.
        init: whether the teacher starts as a copy of the student or independently initialised.
        student_views: the views that the student sees: all, globals, or a list of view ids.
        teacher_views: the views that the teacher sees.
    """

    backbone: Backbone
    head: Head
    teacher: TeacherUpdate
    loss: Loss
    collapse: CollapseOperator | None = None
    predictor: Predictor | None = None
    init: Literal["copy", "independent"] = "copy"
    student_views: ViewChoice = "all"
    teacher_views: ViewChoice = "globals"


@dataclass
class Data:
    """The images, and what their numbers mean.

    Args:
        train: the images to learn from.
        test: the images to judge on, for evaluators; what it does not say it takes from train.
        channels: bands of every image.
        mean: of each band, after the value range is mapped to 0..1.
        std: standard deviation of each band, likewise.
        value_range: the pixel values that mean 0 and 1; null takes 0..255 for 8 bits, 0..65535 for 16 bits and
            0..1 for floating point.
    """

    train: ImageSource
    test: ImageSource | None = None
    channels: int = 3
    mean: list[float] = field(default_factory=lambda: list(IMAGENET_MEAN))
    std: list[float] = field(default_factory=lambda: list(IMAGENET_STD))
    value_range: list[float] | None = None


@dataclass
class Optimization:
    """How the student learns.

    Args:
        optimizer: the rule.
        batch_size: images a step, over all processes.
        lr: learning rate, a number or a schedule.
        epochs: passes over the data.
        steps: this many optimizer steps instead of epochs.
        lr_reference_batch: multiply the learning rate's peak by batch_size / this; null takes it as it is.
        weight_decay: a number or a schedule; which parameters it spares is the optimizer's to say.
        clip_grad_norm: bound on gradient norms; null does not clip.
        clip_per: whether the bound is each parameter tensor's or that of all together.
        freeze: parts of the student (backbone, projector, predictor, prototypes) that do not move at first, and for
            how long ("1 epochs", "313 steps").
    """

    optimizer: Optimizer
    batch_size: int
    lr: float | Schedule
    epochs: float = 100
    steps: int | None = None
    lr_reference_batch: int | None = None
    weight_decay: float | Schedule = 0.0
    clip_grad_norm: float | None = None
    clip_per: Literal["parameter", "all"] = "parameter"
    freeze: dict[str, str] = field(default_factory=dict)


@dataclass
class Runtime:
    """What may change rounding and speed, and nothing else.

    Args:
        device: auto, cpu, cuda or mps.
        num_workers: processes that read and crop images; null chooses by the machine and the data.
        threads: CPU threads of the training process; null leaves it to torch.
        accumulation: micro-batches a step.
        compile: whether the backbone is compiled.
        log_every: steps between rows of metrics.jsonl.
        checkpoint_every: time between checkpoints ("1 epochs", "500 steps").
        keep_checkpoints: how many newest checkpoints stay.
        unreadable_limit: share of images that may be unreadable before the run stops.
        callbacks: watchers of the run.
    """

    device: str = "auto"
    num_workers: int | None = None
    threads: int | None = None
    accumulation: int = 1
    compile: bool = False
    log_every: int = 10
    checkpoint_every: str = "1 epochs"
    keep_checkpoints: int = 2
    unreadable_limit: float = 0.01
    callbacks: list[Callback] = field(default_factory=list)


@dataclass
class Evaluation:
    """What watches the run; it changes nothing in it.

    Args:
        evaluators: the tests of the frozen backbones.
        every: time between evaluations ("5 epochs"); null evaluates only at the end.
        networks: which backbones: teacher, student, or both.
        baselines: models measured once beside them: untrained, raw-pixels.
        size: side in pixels of the images that evaluators see; null takes the global views'.
        resize: the shorter side before the central crop; null takes size / 0.875.
        batch_size: images a forward pass.
    """

    evaluators: list[Evaluator] = field(default_factory=list)
    every: str | None = None
    networks: list[Literal["teacher", "student"]] = field(default_factory=lambda: ["teacher", "student"])
    baselines: list[str] = field(default_factory=list)
    size: int | None = None
    resize: int | None = None
    batch_size: int = 64


@dataclass
class Sections:
    """A whole recipe, filled.

    Args:
        method: the slots of the step.
        views: how images become views.
        data: the images.
        optimization: how the student learns.
        precision: auto takes bf16 where the device does it well, else fp32.
        seed: of everything random.
        runtime: speed.
        evaluation: what watches.
    """

    method: Method
    views: ViewMaker
    data: Data
    optimization: Optimization
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    seed: int = 0
    runtime: Runtime = field(default_factory=Runtime)
    evaluation: Evaluation = field(default_factory=Evaluation)
