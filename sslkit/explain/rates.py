"""Recommendations on the learning rate and the weight decay of a run, and on the mean and std of its images."""

import math
from collections.abc import Iterator, Sequence

from sslkit.recipe.sections import Optimization
from sslkit.recommendation import ANY_FAILURE, Recommendation, RunContext
from sslkit.schedules import value_at

MOST_DECAY, USUAL_DECAY = 0.01, 1e-5
"""Learning rate times weight decay: ten times the most that is published (DINO, 0.002 x 0.4), and in the midst."""


def of_rates(plan: Optimization, context: RunContext) -> Iterator[Recommendation]:
    """Yield changes of a learning rate of 0, and of a weight decay that outweighs the gradients."""
    if context.learning_rate == 0:
        usual = plan.optimizer.usual_lr
        yield Recommendation(
            "optimization.lr: 0 at every step, so that no weight moves",
            plan.optimizer.published_by,
            {"optimization.lr": usual} if usual else {},
            leads_to=("not learning",),
        )
    published = plan.optimizer.published_lr
    if published and context.learning_rate > 10 * published[1]:
        # Too high itself, which the optimizer says: the weight decay may be right.
        return
    products = [plan.learning_rate(moment) * value_at(plan.weight_decay, moment) for moment in context.moments()]
    if max(products) > MOST_DECAY:
        yield Recommendation(
            f"optimization.weight_decay: times the learning rate it is up to {max(products):.3g}, the share of each "
            "weight that a step takes away; published products are at most 0.0008",
            "DINO: 0.002 x 0.4",
            {"optimization.weight_decay": float(f"{USUAL_DECAY / context.learning_rate:.1g}")},
            leads_to=ANY_FAILURE,
        )


def of_normalization(mean: Sequence[float], std: Sequence[float]) -> Iterator[Recommendation]:
    """Yield a mean and std that were meant for images in 0..255, of which these are constant."""
    if max([*mean, *std, 0.0]) > 1 and all(map(math.isfinite, (*mean, *std))):
        changes = {"data.mean": mean, "data.std": std}
        yield Recommendation(
            f"data.mean, data.std: {max(*mean, *std):g} is more than the images, which are in 0..1, have; divided by "
            "255 they fit",
            changes={key: [round(value / 255, 4) for value in values] for key, values in changes.items()},
            leads_to=ANY_FAILURE,
        )
