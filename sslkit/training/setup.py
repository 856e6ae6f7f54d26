"""What a run derives from its recipe before it starts: device, clock, cadence, preprocessing."""

from collections.abc import Iterable
from contextlib import suppress

import torch

from sslkit.clock import Clock
from sslkit.device import COMPILE_OPTIONS, choose_device, choose_precision
from sslkit.errors import RecipeError
from sslkit.method.branch import Branch
from sslkit.recipe.sections import BuiltRecipe
from sslkit.training.accelerated import AccelerateExecutor, start_accelerator
from sslkit.training.intervals import Intervals
from sslkit.types import Preprocessing
from sslkit.views.evaluation import EvaluationView

LOOKED_AT = 8
"""Training images whose range of values is looked at."""

DARK = 0.3
"""Share of the range below which the brightest pixel of these images is a mistake rather than a dark scene."""


def start_process(built: BuiltRecipe) -> tuple[torch.device, str, AccelerateExecutor]:
    """Return this process's device, precision and executor, after it has joined the others."""
    if built.runtime.threads is not None:
        # Before the first operation starts torch's pool of threads.
        torch.set_num_threads(built.runtime.threads)
    device = choose_device(built.runtime.device)
    precision = choose_precision(built.precision, device)
    return device, precision, AccelerateExecutor(start_accelerator(device, precision))


def compile_backbones(branches: Iterable[Branch]) -> None:
    """Compile the backbones of these networks, in place."""
    for branch in branches:
        branch.backbone.compile(options=COMPILE_OPTIONS)


def intervals_of(built: BuiltRecipe) -> Intervals:
    """Return when the run logs, saves and evaluates."""
    runtime = built.runtime
    return Intervals(runtime.log_every, runtime.rank_every, runtime.checkpoint_every, built.evaluation.every)


def start_clock(built: BuiltRecipe) -> Clock:
    """Return the run's time at its start.

    Raises:
        RecipeError: a batch is more than the images.
    """
    plan, images = built.optimization, len(built.data.train)
    if plan.batch_size > images:
        raise RecipeError(
            f"optimization.batch_size: {plan.batch_size} is more than the {images} images of "
            f"{built.data.train.name}; take at most that many, or have the recipe fitted to them, its schedules too:\n"
            "  sslkit explain RECIPE --data FOLDER --apply FILE.yaml"
        )
    return plan.clock(images)


def views_seen(built: BuiltRecipe, clock: Clock, size: int) -> float:
    """Return how many views of ``size`` px have as many pixels as all views of a run."""
    pixels = sum(side**2 for side in built.views.sizes)
    return clock.total_steps * built.optimization.batch_size * pixels / size**2


def preprocessing_of(built: BuiltRecipe) -> Preprocessing:
    """Return the preprocessing of evaluators: as large as the global views unless the recipe has another size.

    Raises:
        RecipeError: a size that no image could be cut to.
    """
    data, section = built.data, built.evaluation
    size = section.view_size or _global_size(built)
    resize = section.resize or round(size / (section.crop_pct or 1.0))
    try:
        EvaluationView(size, resize, data.channels, data.mean, data.std)
    except RecipeError as error:
        raise RecipeError(f"evaluation.view_size {size}, evaluation.resize {resize}: {error}") from error
    return Preprocessing(data.channels, data.mean, data.std, data.value_range, size, resize)


def size_note(built: BuiltRecipe) -> str:
    """Return a line for the user where networks are evaluated at another size than they train at; else empty."""
    trained, size = _global_size(built), built.evaluation.view_size
    if size in (None, trained):
        return ""
    return (
        f"note: networks are evaluated and exported at {size} px (evaluation.view_size), but train on views of "
        f"{trained} px; --evaluation.view_size null --evaluation.resize null takes the views' size"
    )


def range_note(built: BuiltRecipe) -> str:
    """Return a line for the user where training images use little of the range that black and white are read as.

    A few images decide: 12-bit values in files of 16 bits would be nearly black, and floats above 1 all white.
    """
    source = built.data.train
    if built.data.value_range is not None:
        return ""
    images = []
    for index in sorted({i * len(source) // LOOKED_AT for i in range(LOOKED_AT)}):
        with suppress(Exception):  # the loader reports what is wrong with a source, and which of its images
            images.append(source.read(index).image)
    if not all(isinstance(image, torch.Tensor) and image.numel() for image in images):
        return ""
    ranges = {image.dtype: 65535.0 if image.dtype == torch.uint16 else 1.0 for image in images}
    if not images or torch.uint8 in ranges:
        return ""
    low, high = (min(float(image.double().min()) for image in images), max(float(i.double().max()) for i in images))
    white = max(ranges.values())
    if low == high or (low >= 0 and white * DARK <= high <= white):
        return ""
    proposed = f"[0, {2 ** int(high).bit_length() - 1}]" if torch.uint16 in ranges else f"[{low:.4g}, {high:.4g}]"
    return (
        f"data.train: pixels of {len(images)} images are from {low:.4g} to {high:.4g}, but 0 is read as black and "
        f"{white:.0f} as white; --data.value_range '{proposed}' reads them as the whole range"
    )


def _global_size(built: BuiltRecipe) -> int:
    return max(built.views.sizes[: built.views.num_globals])
