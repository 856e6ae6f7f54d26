"""When a run starts and how its evaluators see the images."""

from sslkit.clock import Clock
from sslkit.errors import RecipeError
from sslkit.recipe.sections import BuiltRecipe
from sslkit.types import Preprocessing
from sslkit.views.evaluation import EvaluationView


def start_clock(parts: BuiltRecipe) -> Clock:
    """Return the run's time at its start.

    Raises:
        RecipeError: a batch is more than the images.
    """
    plan, images = parts.optimization, len(parts.data.train)
    if plan.batch_size > images:
        raise RecipeError(
            f"optimization.batch_size: {plan.batch_size} is more than the {images} images of "
            f"{parts.data.train.name}; take at most that many"
        )
    return plan.clock(images)


def preprocessing_of(parts: BuiltRecipe) -> Preprocessing:
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
    return Preprocessing(data.channels, data.mean, data.std, data.value_range, size, resize)
