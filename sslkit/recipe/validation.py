"""Validation that the components of a recipe fit one another."""

from collections.abc import Mapping

from sslkit.contracts import Backbone, ImageSource, ViewMaker
from sslkit.errors import RecipeError
from sslkit.method.batch_norm import check_groups
from sslkit.method.branch import Branch
from sslkit.method.fit import check_fit
from sslkit.method.student_pass import check_accumulation
from sslkit.method.student_teacher import compared_views
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


def check_sizes(views: ViewMaker, backbone: Backbone, spec: ComponentSpec) -> None:
    """Raise an error if a view size is not a multiple of the backbone's patch size.

    Args:
        views: the view maker.
        backbone: of the recipe.
        spec: of the view maker, to name the argument.

    Raises:
        RecipeError: naming the size and the nearest sizes that fit.
    """
    patch = backbone.patch_size
    for size in sorted(set(views.sizes), reverse=True):
        if patch and size % patch:
            name = next((name for name in parameters(spec.cls) if spec.at(name) == size), "")
            near = " or ".join(str(patch * n) for n in (size // patch, size // patch + 1) if n)
            raise RecipeError(
                f"views{'.' if name else ''}{name}: {size} pixels are no multiple of the backbone's patch of {patch}; "
                f"take {near}"
            )


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
