"""Whose statistics a batch norm takes: of all processes, of each process, or of a few images at a time."""

from typing import Literal

import torch
from timm.layers import convert_sync_batchnorm
from torch.nn.modules.batchnorm import _BatchNorm

from sslkit.distributed import world_size
from sslkit.errors import RecipeError
from sslkit.method.branch import Branch
from sslkit.method.split_batch_norm import SplitBatchNorm
from sslkit.method.student_teacher import StudentTeacher

BatchNormImages = Literal["synchronized", "local"] | int
"""The images that a batch norm takes its statistics from; a number is a whole number of images, 2 or more."""


def set_batch_norm(model: StudentTeacher, images: BatchNormImages, device: torch.device) -> None:
    """Give student and teacher the batch norms that a recipe asks for; weights and their names stay.

    Args:
        model: just built, before its optimizer.
        images: ``method.batch_norm``.
        device: where the model will run; torch synchronizes statistics between GPUs only.
    """
    if isinstance(images, int):
        split_batch_norm(model, images)
    elif images == "synchronized" and device.type == "cuda" and world_size() > 1:
        synchronize_batch_norm(model)


def synchronize_batch_norm(model: StudentTeacher) -> None:
    """Let every batch norm of student and teacher take its statistics from all processes, each on a GPU."""
    # timm's own keeps the activation that some of its batch norms carry; torch's would drop it.
    for branch in {model.student, model.teacher}:
        convert_sync_batchnorm(branch)


def split_batch_norm(model: StudentTeacher, num_images: int) -> None:
    """Let every batch norm of student and teacher take its statistics from ``num_images`` images at a time.

    It does on one GPU what MoCo's shuffled batch norm (arXiv:1911.05722, §3.3) does on several: 32 for the paper's 256
    images on 8. Were a query and its key normalised together with the same other images, their common statistics would
    give the pair away. So the student's groups are neighbours in the batch, and the teacher's lie as far apart as can
    be: of n groups, a query's and its key's have at most num_images / n images in common, rounded up, which no other
    grouping can beat. The reference draws the keys' groups; here nothing is drawn, because the order of the batch is
    drawn already.

    A teacher that is the student itself is grouped as the student.

    Args:
        model: just built, before its optimizer.
        num_images: at least 2; must divide the images that pass a network at a time, and leave several groups.

    Raises:
        RecipeError: a batch norm has no running statistics.
    """
    _split(model.student, num_images, spread=False)
    if model.teacher is not model.student:
        _split(model.teacher, num_images, spread=True)


def check_groups(num_images: int, batch_size: int, accumulation: int) -> None:
    """Refuse groups that do not divide each micro-batch, or that leave the teacher no other grouping.

    Args:
        num_images: in a group.
        batch_size: of this process.
        accumulation: micro-batches.

    Raises:
        RecipeError: naming the nearest numbers that would do.
    """
    fitting = [size for size in range(2, batch_size // 2 + 1) if batch_size % (size * accumulation) == 0]
    if num_images not in fitting:
        nearest = sorted(sorted(fitting, key=lambda size: abs(size - num_images))[:3])
        micro_batches = f" in {accumulation} micro-batches" if accumulation > 1 else ""
        add = "\n  ".join(
            ["Add one of" if nearest else "Add", *(f"--method.batch_norm {choice}" for choice in (*nearest, "local"))]
        )
        raise RecipeError(
            f"method.batch_norm: the {batch_size} images of a process{micro_batches} cannot be cut into two or more "
            f"groups of {num_images}. {add}"
        )


def _split(branch: Branch, num_images: int, spread: bool) -> None:
    for parent in list(branch.modules()):
        for name, child in parent.named_children():
            if isinstance(child, _BatchNorm):
                setattr(parent, name, SplitBatchNorm(child, num_images, spread))
