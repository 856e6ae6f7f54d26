"""Construction of networks and optimizer from the sections of a recipe."""

import torch

from sslkit.checks.outputs import check_optimizer
from sslkit.contracts import Backbone
from sslkit.errors import NotSupported
from sslkit.method.batch_norm import set_batch_norm
from sslkit.method.branch import Branch
from sslkit.method.student_teacher import StudentTeacher
from sslkit.optimizers.parameter_groups import parameter_groups
from sslkit.recipe.sections import Method, Optimization


def build_model(
    method: Method, teacher: Branch | None, device: torch.device, checkpoint_activations: bool = False
) -> StudentTeacher:
    """Return student and teacher of a method on a device.

    Args:
        method: the built section.
        teacher: a branch that the teacher starts as; None for a copy of the student.
        device: to train on.
        checkpoint_activations: whether the backbone of the student recomputes its activations in the backward pass.

    Raises:
        NotSupported: the backbone cannot recompute activations.
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
    # After the teacher is a network of its own, since batch norms are replaced in both.
    set_batch_norm(model, method.batch_norm, device)
    if checkpoint_activations:
        _checkpoint(model.student.backbone)
    # Convolutions are faster with channels last, on CPUs and GPUs.
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
    """Return the optimizer of a student's parameters, with the learning rate scale of each part.

    Args:
        plan: the section ``optimization``; parts in ``lr_scale`` that the student lacks are ignored.
        student: the branch to train.

    Raises:
        ComponentError: what was built is no optimizer of all parameters.
    """
    parts = student.parts()
    scales = {parts[name]: scale for name, scale in plan.lr_scale.items() if scale is not None and name in parts}
    groups = parameter_groups(student, plan.optimizer.decays_vectors, scales)
    # The learning rate of 0 is replaced before each step, by `set_rates`.
    groups = [{**group, "lr": 0.0} for group in groups]
    return check_optimizer(plan.optimizer, plan.optimizer.build(groups), groups)
