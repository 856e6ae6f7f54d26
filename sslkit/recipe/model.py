"""Build a recipe's networks and optimizer."""

import torch

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
    # Convolutions are faster in channels last, on CPUs and GPUs.
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
