"""Recommendations of all components of a recipe, for a number of training images and of processes."""

import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from torch.nn.modules.batchnorm import _BatchNorm

from sslkit.checks.outputs import check_recommendations, check_schedule
from sslkit.explain.rates import of_normalization, of_rates
from sslkit.recipe.build import Builder
from sslkit.recipe.layers import COMMAND_LINE, merge_layers, origins_of
from sslkit.recipe.loading import Recipe
from sslkit.recipe.sections import Method, Optimization
from sslkit.recipe.validation import chosen_views
from sslkit.recommendation import Component, Recommendation, RunContext, power_of_two, too_long
from sslkit.schedules import Schedule

MIN_NORM_IMAGES = 16
"""Images per batch-norm statistic, below which the error grows (Group Normalization, arXiv:1803.08494, figure 1)."""


def run_context(builder: Builder, num_images: int, processes: int = 1) -> RunContext:
    """Return the sizes and the schedule of a run of a recipe.

    Args:
        builder: builder of the recipe.
        num_images: number of training images.
        processes: processes that share each batch.

    Raises:
        ComponentError: a schedule is not a finite number at each moment.
    """
    method, plan = builder.build("method"), builder.build("optimization")
    student, teacher = chosen_views(method, builder.build("views"))
    context = RunContext(
        num_images=num_images,
        batch_size=plan.batch_size,
        clock=plan.clock(num_images),
        processes=processes,
        micro_batches=builder.build("runtime.accumulation"),
        student_views=len(student),
        teacher_views=len(teacher),
        num_prototypes=method.head.num_prototypes,
        shares_weights=method.teacher.shares_weights,
        has_predictor=method.predictor is not None,
        has_operator=method.collapse is not None,
    )
    moments = context.moments()
    for section, least in (("optimization", 0.0), ("method", -math.inf)):
        for key, component in builder.components(section):
            if isinstance(component, Schedule):
                check_schedule(key, component, moments, least)
    return replace(context, learning_rate=max(plan.learning_rate(moment) for moment in moments))


def recommendations(recipe: Recipe, builder: Builder, context: RunContext) -> list[Recommendation]:
    """Return the recommendations of all components of a recipe, and those that concern no single component.

    Args:
        recipe: the recipe.
        builder: its builder; components that are not built yet are built.
        context: sizes and schedule of the run, from `run_context`.

    Returns:
        Recommendations whose reasons and changes name whole recipe keys.
    """
    method, plan = builder.build("method"), builder.build("optimization")
    written_for = _WrittenFor(recipe, plan, context)
    found = [*_of_batch(context), *_of_batch_norm(method, context), *_of_freezing(plan, context)]
    found += [*of_rates(plan, context), *of_normalization(builder.build("data.mean"), builder.build("data.std"))]
    found += _of_unscaled_rate(plan, context, written_for.of("optimization.lr"))
    for section in ("optimization", "method", "views"):
        for key, component in builder.components(section):
            # An argument may hold a component of a kind without recommendations, such as an image source.
            if isinstance(component, Component):
                its_context = replace(context, written_for=written_for.of(key))
                own = check_recommendations(component, component.recommend(its_context))
                found += (_with_key(key, recommendation) for recommendation in own)
    return found


def _with_key(key: str, recommendation: Recommendation) -> Recommendation:
    """Return a recommendation of a component with its keys completed to keys of the recipe."""
    changes = {f"{key}.{name}": value for name, value in recommendation.changes.items()}
    return replace(recommendation, reason=f"{key}: {recommendation.reason}", changes=changes)


def _of_batch(context: RunContext) -> Iterator[Recommendation]:
    if context.batch_size > context.num_images:
        yield Recommendation(
            f"optimization.batch_size: {context.batch_size:,} is more than the {context.num_images:,} images, which "
            "training refuses",
            "DINO table 9: batches of 128 to 1024 differ by 2 points",
            {"optimization.batch_size": power_of_two(context.num_images / 8)},
        )


def _of_batch_norm(method: Method, context: RunContext) -> Iterator[Recommendation]:
    networks = [method.backbone, method.head, method.predictor]
    if not any(isinstance(module, _BatchNorm) for network in networks if network for module in network.modules()):
        return
    images = method.batch_norm if isinstance(method.batch_norm, int) else context.local_images
    if method.batch_norm == "synchronized":
        images = context.batch_size // context.micro_batches
    if images < MIN_NORM_IMAGES:
        yield Recommendation(
            f"method.batch_norm: statistics of {images} images are noisy; the error grows below {MIN_NORM_IMAGES}",
            "arXiv:1803.08494 figure 1",
        )


def _of_freezing(plan: Optimization, context: RunContext) -> Iterator[Recommendation]:
    for part, duration in plan.freezes.items():
        is_whole_run = duration.steps(context.clock) >= context.clock.total_steps
        for recommendation in too_long(f"optimization.freeze.{part}", duration, context):
            yield replace(recommendation, leads_to=("not learning",) if is_whole_run else ())


def _of_unscaled_rate(plan: Optimization, context: RunContext, written: RunContext | None) -> Iterator[Recommendation]:
    """Yield a recommendation where the batch size differs from the one that the learning rate was written for."""
    if written is None or plan.lr_reference_batch or written.batch_size == context.batch_size:
        return
    # A schedule that cannot be scaled would be refused with a reference batch.
    has_peak = not isinstance(plan.lr, Schedule) or type(plan.lr).scaled is not Schedule.scaled
    yield Recommendation(
        f"optimization.lr was chosen for batches of {written.batch_size:,}, and these are of {context.batch_size:,}; a "
        "learning rate is usually scaled with the batch",
        "arXiv:1706.02677",
        {"optimization.lr_reference_batch": written.batch_size} if has_peak else {},
        is_warning=False,
    )


class _WrittenFor:
    """Batch sizes and numbers of images that the files of a recipe were written for.

    A number in a recipe file was chosen for the batch and the images that this file, over its bases, gives.

    Args:
        recipe: the recipe.
        plan: its section ``optimization``.
        context: the run; overrides of the command line are taken as written for it.
    """

    def __init__(self, recipe: Recipe, plan: Optimization, context: RunContext) -> None:
        self.layers = recipe.layers
        self.images = recipe.values.get("data", {}).get("train")
        self.plan = plan
        self.context = context
        self._of_layer = cache(self._written_for)

    def of(self, key: str) -> RunContext | None:
        """Return the context that the value of a key was written for, None where it is not known."""
        return self._of_layer(max((i for i, _ in enumerate(self.layers) if self._sets(i, key)), default=0))

    def _sets(self, i: int, key: str) -> bool:
        return bool(origins_of(key, self.layers[i : i + 1]))

    def _written_for(self, i: int) -> RunContext | None:
        if self.layers[i].origin == COMMAND_LINE:
            return self.context
        values = merge_layers(self.layers[: i + 1])
        plan, data = values.get("optimization", {}), values.get("data", {})
        # Without `data.num_images`, a file that names the images of this run was written for as many.
        same_images = self.context.num_images if data.get("train") == self.images else None
        num_images, batch_size = data.get("num_images") or same_images, plan.get("batch_size")
        if num_images is None or batch_size is None:
            return None
        optimization = replace(self.plan, batch_size=batch_size)
        return RunContext(num_images, batch_size, optimization.clock(num_images))
