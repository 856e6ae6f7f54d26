"""Validation that the components of a recipe fit one another."""

from collections.abc import Mapping, Sequence
from functools import partial

from torch import nn

from sslkit.backbones.trial import Trial, check_size
from sslkit.checks.outputs import check_rows
from sslkit.contracts import ImageSource, ViewMaker
from sslkit.device import memory_size
from sslkit.errors import RecipeError, SSLKitError, reason_of
from sslkit.method.batch_norm import check_groups
from sslkit.method.branch import Branch
from sslkit.method.fit import check_fit
from sslkit.method.student_pass import check_accumulation
from sslkit.method.student_teacher import compared_views
from sslkit.recipe.build import Builder
from sslkit.recipe.sections import Method, Optimization, Runtime, StudentPart
from sslkit.recipe.signature import parameters
from sslkit.recipe.specification import ComponentSpec


def validate(method: Method, views: ViewMaker, plan: Optimization, runtime: Runtime, processes: int = 1) -> None:
    """Raise the errors of the first step before images are read and folders are created.

    Args:
        method: the built section.
        views: the view maker.
        plan: the section ``optimization``.
        runtime: the section.
        processes: number of processes that share each batch.

    Raises:
        RecipeError: components do not fit together, chosen views are not made, the student lacks a frozen or scaled
            part, micro-batches are empty or the loss couples the batch, or the batch size is not divisible by the
            processes or by the groups of batch norms.
    """
    check_fit(method.head, method.collapse, method.loss)
    _, teacher_views = chosen_views(method, views)
    if plan.batch_size % processes:
        raise RecipeError(f"optimization.batch_size: {plan.batch_size} cannot be shared by {processes} processes")
    num_images = plan.batch_size // processes
    if method.collapse is not None:
        method.collapse.check(len(teacher_views), num_images)
    check_parts(plan.freeze, plan.lr_scale, Branch(method.backbone, method.head, method.predictor))
    check_accumulation(runtime.accumulation, method.loss, num_images)
    if isinstance(method.batch_norm, int):
        check_groups(method.batch_norm, num_images, runtime.accumulation)


def check_parts_fit(builder: Builder, processes: int = 1) -> None:
    """Raise the errors of `validate`, and those of head and predictor on a micro-batch, for a recipe.

    Args:
        builder: of the recipe.
        processes: number of processes that share each batch.

    Raises:
        RecipeError: as `validate` and `check_head`.
    """
    method, views, plan, runtime = map(builder.build, ("method", "views", "optimization", "runtime"))
    validate(method, views, plan, runtime, processes)
    check_head(method, views, plan.batch_size // processes // runtime.accumulation)


def check_parts(
    freeze: Mapping[StudentPart, str | None], lr_scale: Mapping[StudentPart, float | None], student: Branch
) -> None:
    """Raise an error if the student lacks a part that is frozen or whose learning rate is scaled.

    Args:
        freeze: ``optimization.freeze``.
        lr_scale: ``optimization.lr_scale``.
        student: the branch to train.

    Raises:
        RecipeError: naming the part and the override that removes it.
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


def chosen_views(method: Method, maker: ViewMaker) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return the view ids of the student and those of the teacher.

    Args:
        method: chooses them.
        maker: makes the views.

    Raises:
        RecipeError: a chosen view is not made, or there are no two different views to compare.
    """
    ids = range(len(maker.sizes))
    return compared_views(method.student_views, method.teacher_views, ids, maker.num_globals)


def check_sizes(builder: Builder) -> None:
    """Raise an error if an image's views do not fit into memory, or the backbone cannot take a size of the recipe.

    Args:
        builder: of the recipe; its backbone is tried and not changed.

    Raises:
        RecipeError: naming the size and the nearest sizes that fit.
    """
    views, backbone, spec = builder.build("views"), builder.build("method.backbone"), builder.root.at("views")
    check_memory(views.sizes, views.channels, key=_size_key(max(views.sizes), spec))
    patch = backbone.patch_size
    for size in sorted(set(views.sizes), reverse=True):
        key = _size_key(size, spec)
        if patch and size % patch:
            near = " or ".join(str(patch * n) for n in (size // patch, size // patch + 1) if n)
            raise RecipeError(f"{key}: {size} pixels are no multiple of the backbone's patch of {patch}; take {near}")
        check_size(key, backbone, size, views.channels)
    if (view_size := builder.root.at("evaluation.view_size")) is not None:
        check_memory([view_size], views.channels, key="evaluation.view_size")
        check_size("evaluation.view_size", backbone, view_size, views.channels)


def check_head(method: Method, maker: ViewMaker, num_images: int) -> None:
    """Raise an error if head and predictor cannot take the features of a micro-batch, as batch norms of one image.

    Args:
        method: the built section, on the CPU; its networks are tried and not changed.
        maker: the view maker.
        num_images: images of a micro-batch.

    Raises:
        RecipeError: naming the head, or the batch size.
    """
    student_views, _ = chosen_views(method, maker)
    rows = num_images * (1 if method.separate_views else len(student_views))
    head, embed_dim, width = method.head, method.head.embed_dim, method.backbone.embed_dim
    parts: list[tuple[str, nn.Module, str, nn.Module, str, int | None]]
    parts = [("method.head", head, "projector", head.projector, "embed_dim", embed_dim)]
    if method.predictor is not None:
        parts.append(("method.predictor", method.predictor, "forward", method.predictor, "embed_dim", embed_dim))
    if head.prototypes is not None:
        parts.append(("method.head", head, "prototypes", head.prototypes, "num_prototypes", head.num_prototypes))
    for key, owner, name, part, size, out in parts:
        check = partial(check_rows, owner, name, num_rows=rows, width=out, size=f"{size} of the head")
        if error := Trial(part, check).failure(rows, width):
            raise RecipeError(_of_trial(key, owner, rows, width, error))
        width = embed_dim


def _of_trial(key: str, owner: nn.Module, rows: int, width: int, error: Exception) -> str:
    """Return the message for a part of the student that fails on a micro-batch."""
    if isinstance(error, SSLKitError):
        return f"{key}: {error}"
    if rows == 1:
        return (
            "optimization.batch_size: head or predictor cannot take a single image at a time: "
            f"{reason_of(error)}; take 2 or more in each micro-batch"
        )
    return f"{key}: {type(owner).__name__} fails on {rows} rows of {width} numbers: {reason_of(error)}"


def check_memory(
    sizes: Sequence[int], channels: int, num_images: int = 1, key: str = "optimization.batch_size"
) -> None:
    """Raise an error if the views of a batch are more than the memory of this machine, at a byte a value.

    Args:
        sizes: sides of the views of an image, in pixels.
        channels: of the images.
        num_images: images in a step, in this process.
        key: of what asks for so much, for the message.

    Raises:
        RecipeError: naming both sizes.
    """
    needed, memory = num_images * channels * sum(size**2 for size in sizes), memory_size()
    if memory is not None and needed > memory:
        views, images = (
            f"{count} {name}{'' if count == 1 else 's'}"
            for count, name in ((len(sizes), "view"), (num_images, "image"))
        )
        raise RecipeError(
            f"{key}: {views} of up to {max(sizes)} px of {images} take {needed / 1e9:,.0f} GB at a byte a value, but "
            f"this machine has {memory / 1e9:,.0f} GB of memory; take "
            f"{'smaller views' if num_images == 1 else 'fewer images'}"
        )


def _size_key(size: int, spec: ComponentSpec) -> str:
    """Return the key of the argument of a view maker that is a size of this value, or that of the view maker."""
    sizes = (name for name in parameters(spec.cls) if name.endswith("size"))
    return next((f"views.{name}" for name in sizes if spec.at(name) == size), "views")


def check_channels(source: ImageSource, key: str, channels: int) -> None:
    """Raise an error if the images of a source have another number of channels than the recipe.

    Args:
        source: the images.
        key: of the source, for the message.
        channels: ``data.channels``.

    Raises:
        RecipeError: naming both numbers.
    """
    if source.channels != channels:
        raise RecipeError(f"{key} holds images of {source.channels} channels, but data.channels is {channels}")
