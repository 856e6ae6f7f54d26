"""Collect the recommendations of all components of a recipe for a number of images."""

from collections.abc import Iterator
from dataclasses import replace
from functools import cache

from torch.nn.modules.batchnorm import _BatchNorm

from sslkit.recipe.build import Builder
from sslkit.recipe.layers import COMMAND_LINE, merge_layers, origins_of
from sslkit.recipe.loading import Recipe
from sslkit.recipe.sections import Method, Optimization
from sslkit.recipe.validation import chosen_views
from sslkit.recommendation import Component, Recommendation, RunContext, power_of_two, too_long
from sslkit.schedules import Schedule

FEWEST_NORMALISED = 16
"""Images a batch norm takes its statistics from, below which its error grows (Group Normalization, figure 1)."""


def run_context(builder: Builder, num_images: int, processes: int = 1) -> RunContext:
    """Return the sizes and the schedule of a recipe's run.

    Args:
        builder: of the recipe.
        num_images: training images.
        processes: that share each batch.
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
    return replace(context, learning_rate=max(plan.learning_rate(moment) for moment in context.moments()))


def recommendations(recipe: Recipe, builder: Builder, context: RunContext) -> list[Recommendation]:
    """Return the recommendations of all components of a recipe; reasons and changes name whole recipe keys.

    Args:
        recipe: what is judged.
        builder: of the recipe, which makes the parts that it has not made yet.
        context: from `run_context`.
    """
    method, plan = builder.build("method"), builder.build("optimization")
    intentions = _Intentions(recipe, plan, context)
    found = [*_of_batch(context), *_of_batch_norm(method, context), *_of_freezing(plan, context)]
    found += _of_unscaled_rate(plan, context, intentions.of("optimization.lr"))
    for section in ("optimization", "method", "views"):
        for key, part in builder.components(section):
            if isinstance(part, Component):
                there = replace(context, written_for=intentions.of(key))
                found += (_with_key(key, recommendation) for recommendation in part.recommend(there))
    return found


def _with_key(key: str, recommendation: Recommendation) -> Recommendation:
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
    if images < FEWEST_NORMALISED:
        yield Recommendation(
            f"method.batch_norm: statistics of {images} images are noisy; the error grows below {FEWEST_NORMALISED}",
            "arXiv:1803.08494 figure 1",
        )


def _of_freezing(plan: Optimization, context: RunContext) -> Iterator[Recommendation]:
    for part, duration in plan.freezes.items():
        yield from too_long(f"optimization.freeze.{part}", duration, context)


def _of_unscaled_rate(plan: Optimization, context: RunContext, there: RunContext | None) -> Iterator[Recommendation]:
    """Yield that the batch has another size than the one that the learning rate was written beside."""
    if there is None or plan.lr_reference_batch or there.batch_size == context.batch_size:
        return
    has_peak = not isinstance(plan.lr, Schedule) or type(plan.lr).scaled is not Schedule.scaled
    yield Recommendation(
        f"optimization.lr was chosen for batches of {there.batch_size:,}, and these are of {context.batch_size:,}; a "
        "learning rate is usually scaled with the batch",
        "arXiv:1706.02677",
        {"optimization.lr_reference_batch": there.batch_size} if has_peak else {},
        is_warning=False,
    )


class _Intentions:
    """What the files of a recipe were written for, layer by layer.

    Args:
        recipe: the whole of them.
        plan: its optimization.
        context: what the recipe is judged in; the command line is taken to have it in mind.
    """

    def __init__(self, recipe: Recipe, plan: Optimization, context: RunContext) -> None:
        self.layers = recipe.layers
        self.images = recipe.values.get("data", {}).get("train")
        self.plan = plan
        self.context = context
        self._of_layer = cache(self._written_for)

    def of(self, key: str) -> RunContext | None:
        """Return the context of the recipe that last set a key, None where that is not known."""
        return self._of_layer(max((i for i, _ in enumerate(self.layers) if self._says(i, key)), default=0))

    def _says(self, i: int, key: str) -> bool:
        return bool(origins_of(key, self.layers[i : i + 1]))

    def _written_for(self, i: int) -> RunContext | None:
        if self.layers[i].origin == COMMAND_LINE:
            return self.context
        values = merge_layers(self.layers[: i + 1])
        plan, data = values.get("optimization", {}), values.get("data", {})
        same_images = self.context.num_images if data.get("train") == self.images else None
        num_images, batch_size = data.get("num_images") or same_images, plan.get("batch_size")
        if num_images is None or batch_size is None:
            return None
        then = replace(self.plan, batch_size=batch_size)
        return RunContext(num_images, batch_size, then.clock(num_images))
