"""Learning rate, weight decay, mean and std that cannot be meant, and those of the papers."""

import pytest
from advice import run

from sslkit import SGD, AdamW, Constant, Cosine
from sslkit.explain.rates import of_normalization, of_rates
from sslkit.recipe.sections import Optimization
from sslkit.recommendation import ANY_FAILURE


def found(optimizer, lr, weight_decay=0.0):
    plan = Optimization(optimizer, batch_size=1024, epochs=300, lr=lr, weight_decay=weight_decay)
    context = run()
    peak = max(plan.learning_rate(moment) for moment in context.moments())
    return list(of_rates(plan, run(learning_rate=peak)))


@pytest.mark.parametrize("lr", [0.0, Constant(0.0), Cosine(0.0, 0.0)])
def test_a_learning_rate_of_0_is_told_with_a_usual_one(lr):
    (only,) = found(AdamW(), lr, 0.04)
    assert only.reason == "optimization.lr: 0 at every step, so that no weight moves"
    assert (dict(only.changes), only.leads_to) == ({"optimization.lr": 0.0002}, ("not learning",))
    assert dict(found(SGD(), lr)[0].changes) == {"optimization.lr": 0.1}


@pytest.mark.parametrize(("optimizer", "lr", "decay", "usual"), [(AdamW(), 0.004, 50, 0.003), (SGD(), 0.1, 1.0, 1e-4)])
def test_a_weight_decay_that_outweighs_gradients_is_told_with_a_usual_one(optimizer, lr, decay, usual):
    (only,) = found(optimizer, lr, decay)
    assert f"it is up to {lr * decay:.3g}, the share of each weight" in only.reason
    assert (dict(only.changes), only.leads_to) == ({"optimization.weight_decay": usual}, ANY_FAILURE)


@pytest.mark.parametrize(
    ("optimizer", "lr", "decay"),
    [(AdamW(), Cosine(0.002, 1e-6), Cosine(0.04, 0.4)), (AdamW(), 0.006, 0.04), (SGD(), 0.03, 1e-4), (SGD(), 0.5, 0.0)],
)
def test_published_rates_are_not(optimizer, lr, decay):
    assert found(optimizer, lr, decay) == []


def test_a_learning_rate_that_is_too_high_itself_is_the_optimizers_to_tell():
    assert found(AdamW(), 10.0, 0.04) == found(SGD(), 1e10, 1e-4) == []


def test_mean_and_std_of_images_up_to_255_are_divided():
    (only,) = of_normalization([123.7, 116.3, 103.5], [58.4, 57.1, 57.4])
    assert only.changes["data.mean"] == [0.4851, 0.4561, 0.4059]
    assert only.changes["data.std"] == [0.229, 0.2239, 0.2251]
    assert list(of_normalization([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])) == []
    assert list(of_normalization([], [])) == []
