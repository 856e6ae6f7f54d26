"""Each symptom shows in its own numbers, and none where numbers are missing."""

import math

import pytest

from sslkit.health.symptoms import LATE_SYMPTOMS, SYMPTOMS, ln_k

K = 64
NEAR_CHANCE, UNPREDICTED = LATE_SYMPTOMS


def row(prototypes=40.0, **numbers):
    return {"marginal_entropy": math.log(prototypes), "prototype_use": prototypes / K, **numbers}


def test_ln_k_is_read_from_a_row():
    for prototypes in (1.0, 3.5, 64.0):
        assert ln_k(row(prototypes)) == pytest.approx(math.log(K))
    assert ln_k({"marginal_entropy": 1.0}) is None
    assert ln_k({"marginal_entropy": None, "prototype_use": None}) is None


BOUNDS = [
    ("one-dimension collapse", row(1.99), row(2.01)),
    (
        "uniform collapse",
        row(63.9, target_entropy=0.981 * math.log(K), target_kl=0.019 * math.log(K)),
        row(63.9, target_entropy=0.979 * math.log(K), target_kl=0.019 * math.log(K)),
    ),
    (
        "uniform collapse",
        row(63.9, target_entropy=math.log(K), target_kl=0.0),
        row(63.9, target_entropy=math.log(K), target_kl=0.021 * math.log(K)),
    ),
    ("constant embeddings", {"image_cosine": 0.981}, {"image_cosine": 0.979}),
    ("dimensional collapse", {"embedding_directions": 1.19}, {"embedding_directions": 1.21}),
]


@pytest.mark.parametrize(("name", "shown", "healthy"), BOUNDS)
def test_a_symptom_shows_beyond_its_bound_alone(name, shown, healthy):
    assert SYMPTOMS[name](shown)
    assert SYMPTOMS[name](healthy) == ""
    for other, symptom in SYMPTOMS.items():
        assert symptom({}) == "", other


def test_a_loss_that_is_no_better_than_chance():
    assert NEAR_CHANCE({"loss": 4.0, "loss_below_chance": 0.0202}) == ""
    assert NEAR_CHANCE({"loss": 4.0, "loss_below_chance": 0.0200}).startswith("the loss is 4.000")
    assert NEAR_CHANCE({"loss": 4.2, "loss_below_chance": -0.1})
    assert NEAR_CHANCE({"loss": 4.0}) == NEAR_CHANCE({"loss_below_chance": 0.0}) == ""


def test_targets_that_one_answer_would_match_better():
    """KL(targets || student) against KL(targets || their mean) = marginal entropy - mean entropy."""
    numbers = {"target_entropy": 1.0}
    distance = math.log(40) - 1.0
    assert UNPREDICTED(row(40, **numbers, target_kl=distance * 0.99)) == ""
    assert "one answer for all images would match the targets better" in UNPREDICTED(
        row(40, **numbers, target_kl=distance * 1.01)
    )
    assert UNPREDICTED(row(40, **numbers)) == ""
