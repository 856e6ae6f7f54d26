"""When a run starts and how its evaluators see the images."""

from sslkit.clock import Clock
from sslkit.errors import RecipeError
from sslkit.recipe.sections import BuiltRecipe
from sslkit.types import Preprocessing
from sslkit.views.evaluation import EvaluationView


def start_clock(built: BuiltRecipe) -> Clock:
    """Return the run's time at its start.

    Raises:
        RecipeError: a batch is more than the images.
    """
    plan, images = built.optimization, len(built.data.train)
    if plan.batch_size > images:
        raise RecipeError(
            f"optimization.batch_size: {plan.batch_size} is more than the {images} images of "
            f"{built.data.train.name}; take at most that many"
        )
    return plan.clock(images)


def preprocessing_of(built: BuiltRecipe) -> Preprocessing:
    """Return how evaluators see the images: as large as the global views unless the recipe says otherwise.

    Raises:
        RecipeError: a size that no image could be cut to.
    """
    data, section = built.data, built.evaluation
    size = section.view_size or max(built.views.sizes)
    resize = section.resize or size
    try:
        EvaluationView(size, resize, data.channels, data.mean, data.std)
    except RecipeError as error:
        raise RecipeError(f"evaluation.view_size {size}, evaluation.resize {resize}: {error}") from error
    return Preprocessing(data.channels, data.mean, data.std, data.value_range, size, resize)
