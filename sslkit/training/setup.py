"""From a filled recipe to what a run starts with, refusing early what a later moment would refuse."""

from collections.abc import Mapping
from datetime import timedelta

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import InitProcessGroupKwargs

from sslkit.clock import Clock
from sslkit.contracts import Backbone
from sslkit.distributed import world_size
from sslkit.errors import NotSupported, RecipeError
from sslkit.method.batch_norm import check_groups, set_batch_norm
from sslkit.method.step import check_accumulation
from sslkit.method.student_teacher import Branch, StudentTeacher, compared_views
from sslkit.optimizers.parameter_groups import parameter_groups
from sslkit.sections import Method, Optimization, Parts, StudentPart
from sslkit.types import DataStatistics
from sslkit.views.evaluation import EvaluationView

LONGEST_WAIT = timedelta(hours=12)
"""That processes wait for one another: checkpoints and pictures are the main one's alone."""


def start_accelerator(device: torch.device, precision: str) -> Accelerator:
    """Return this process's accelerate, on its device and in the run's precision."""
    # It keeps one state a process; a second run in it may have another precision.
    AcceleratorState._reset_state()
    return Accelerator(
        cpu=device.type == "cpu",
        mixed_precision="no" if precision == "fp32" else precision,
        kwargs_handlers=[InitProcessGroupKwargs(timeout=LONGEST_WAIT)],
    )


def build_model(
    method: Method, teacher: Branch | None, device: torch.device, checkpoint_activations: bool = False
) -> StudentTeacher:
    """Return student and teacher on their device, with the parts of a recipe between them.

    Args:
        method: the slots.
        teacher: a branch to start the teacher from; None copies the student.
        device: where they train.
        checkpoint_activations: whether the student's backbone computes its activations again in the backward pass.

    Raises:
        NotSupported: the backbone cannot.
    """
    model = StudentTeacher(
        Branch(method.backbone, method.head, method.predictor, separate_views=method.separate_views),
        teacher_update=method.teacher,
        collapse=method.collapse,
        loss=method.loss,
        teacher=teacher,
        student_views=method.student_views,
        teacher_views=method.teacher_views,
    )
    set_batch_norm(model, method.batch_norm, device)
    if checkpoint_activations:
        _checkpoint(model.student.backbone)
    return model.to(device).to(memory_format=torch.channels_last)


def _checkpoint(backbone: Backbone) -> None:
    try:
        backbone.checkpoint_activations()
    except NotSupported as error:
        raise NotSupported(
            f"runtime.checkpoint_activations: {error}. Add\n  --runtime.checkpoint_activations false\nand, to save "
            "memory another way,\n  --runtime.accumulation 2"
        ) from error


def build_optimizer(plan: Optimization, student: Branch) -> torch.optim.Optimizer:
    """Return a recipe's optimizer over a student's parameters, each part with its share of the learning rate.

    Args:
        plan: the section; a part in ``lr_scale`` that the student has not changes nothing.
        student: the branch that learns.
    """
    parts = student.parts()
    scales = {parts[name]: scale for name, scale in plan.lr_scale.items() if scale is not None and name in parts}
    groups = parameter_groups(student, plan.optimizer.decays_vectors, scales)
    return plan.optimizer.build([{**group, "lr": 0.0} for group in groups])


def start_clock(parts: Parts) -> Clock:
    """Return the run's time at its start.

    Raises:
        RecipeError: a batch is more than the images, or cannot be shared by the processes.
    """
    plan, images = parts.optimization, len(parts.data.train)
    if plan.batch_size > images:
        raise RecipeError(
            f"optimization.batch_size: {plan.batch_size} is more than the {images} images of "
            f"{parts.data.train.name}; take at most that many"
        )
    if plan.batch_size % world_size():
        raise RecipeError(f"optimization.batch_size: {plan.batch_size} cannot be shared by {world_size()} processes")
    return plan.clock(images)


def data_statistics(parts: Parts) -> DataStatistics:
    """Return how evaluators see the images: as large as the global views unless the recipe says otherwise.

    Raises:
        RecipeError: a size that no image could be cut to.
    """
    data, section = parts.data, parts.evaluation
    size = section.view_size or max(parts.views.sizes)
    resize = section.resize or size
    try:
        EvaluationView(size, resize, data.channels, data.mean, data.std)
    except RecipeError as error:
        raise RecipeError(f"evaluation.view_size {size}, evaluation.resize {resize}: {error}") from error
    return DataStatistics(data.channels, data.mean, data.std, data.value_range, size, resize)


def check_step(parts: Parts, model: StudentTeacher) -> None:
    """Refuse now, while no folder exists, what the first step would refuse.

    Raises:
        SSLKitError: views that are not made, frozen or scaled parts that the student has not, micro-batches without
            images or of a loss that couples the batch, or a batch that does not divide into the groups of its batch
            norms.
    """
    compared_views(model.student_views, model.teacher_views, range(len(parts.views.sizes)), parts.views.num_globals)
    check_parts(parts.optimization.freeze, parts.optimization.lr_scale, model.student)
    num_images = parts.optimization.batch_size // world_size()
    check_accumulation(parts.runtime.accumulation, model.loss, num_images)
    if isinstance(parts.method.batch_norm, int):
        check_groups(parts.method.batch_norm, num_images, parts.runtime.accumulation)


def check_parts(
    freeze: Mapping[StudentPart, str | None], lr_scale: Mapping[StudentPart, float | None], student: Branch
) -> None:
    """Refuse to freeze, or to scale the learning rate of, what the student has not.

    Args:
        freeze: ``optimization.freeze``.
        lr_scale: ``optimization.lr_scale``.
        student: the branch that learns.

    Raises:
        RecipeError: naming the part.
    """
    asked: tuple[tuple[str, Mapping[StudentPart, object], str], ...] = (
        ("freeze", freeze, "keep still"),
        ("lr_scale", lr_scale, "scale the learning rate of"),
    )
    for key, values, purpose in asked:
        for part, value in values.items():
            if value is not None and part not in student.parts():
                where = f"optimization.{key}"
                raise RecipeError(f"{where}: the student has no {part} to {purpose}. Add\n  --{where}.{part} null")
