"""From a filled recipe to what a run starts with, refusing early what a later moment would refuse."""

from sslkit.clock import Clock
from sslkit.distributed import world_size
from sslkit.errors import RecipeError
from sslkit.sections import Method, Parts
from sslkit.student_teacher import Branch, StudentTeacher, compared_views
from sslkit.types import DataStatistics
from sslkit.views.evaluation import EvaluationView


def build_model(method: Method, teacher: Branch | None) -> StudentTeacher:
    """Return student and teacher with the parts of a recipe between them.

    Args:
        method: the slots.
        teacher: a branch to start the teacher from; None copies the student.
    """
    return StudentTeacher(
        Branch(method.backbone, method.head, method.predictor),
        teacher_update=method.teacher,
        collapse=method.collapse,
        loss=method.loss,
        teacher=teacher,
        student_views=method.student_views,
        teacher_views=method.teacher_views,
    )


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
        SSLKitError: views that are not made, or frozen parts that the student has not.
    """
    compared_views(model.student_views, model.teacher_views, range(len(parts.views.sizes)), parts.views.num_globals)
    for part in parts.optimization.freeze:
        model.student.part(part)
