"""Each symptom shows in its own numbers, and none where numbers are missing."""

import math

import pytest

from sslkit.health.symptoms import LATE_SYMPTOMS, SYMPTOMS, diverged, ln_k, stands_still

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
    assert UNPREDICTED(row(40, **numbers, target_kl=distance * 1.24)) == ""
    assert "one answer for all images would match the targets better" in UNPREDICTED(
        row(40, **numbers, target_kl=distance * 1.26)
    )
    assert UNPREDICTED(row(40, **numbers)) == ""


def of_k(prototypes, named, **numbers):
    return {"marginal_entropy": math.log(named), "prototype_use": named / prototypes, **numbers}


def test_few_prototypes_that_are_all_in_use_are_no_collapse():
    one = SYMPTOMS["one-dimension collapse"]
    assert one(of_k(2, 1.99)) == one(of_k(2, 1.51)) == one(of_k(3, 2.9)) == ""
    assert one(of_k(2, 1.49)) == "the targets of a batch name 1.5 prototypes together"
    assert one(of_k(3, 1.9))
    assert one(of_k(1, 1.0)) == "the targets of a batch name 1 prototypes together"


def test_a_single_prototype_has_no_entropy_to_compare_with():
    assert SYMPTOMS["uniform collapse"](of_k(1, 1.0, target_entropy=0.0, target_kl=0.0)) == ""


def test_two_prototypes_need_one_direction_only():
    line = SYMPTOMS["dimensional collapse"]
    assert line(of_k(2, 1.9, embedding_directions=1.0)) == ""
    assert line(of_k(3, 2.9, embedding_directions=1.0)) == "embeddings vary along 1.00 directions"


def skipping(*counts, every=10):
    return [{"step": every * (i + 1), "skipped_steps": count} for i, count in enumerate(counts)]


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (skipping(0, 0, 10), "10 of the last 10 steps moved nothing"),
        (skipping(8), "8 of the last 10 steps"),
        (skipping(0, 4), ""),
        (skipping(40, 40, 40), ""),
        (skipping(*range(1, 8), every=1), "7 of the last 7 steps"),
        (skipping(1, every=1), ""),
        (skipping(*[0] * 20, 1, every=1), ""),
        (skipping(0, 0, 60, every=100), "60 of the last 100 steps"),
        ([{"step": 10}, {"step": 20, "skipped_steps": None}], ""),
        ([{"step": 10, "loss": None}], ""),
        ([{"step": 10, "nonfinite_tensors": 2}], "2 weights, buffers or moments of the optimizer are not finite"),
    ],
)
def test_divergence_is_many_steps_that_moved_nothing(rows, reason):
    assert diverged(rows).startswith(reason)
    assert bool(diverged(rows)) == bool(reason)


def test_standing_still_is_so_in_every_row():
    still = {"lr": 0.0, "teacher_momentum": 0.99}
    assert stands_still([still, still]) == "the learning rate is 0"
    assert stands_still([still, {**still, "lr": 1e-9}]) == ""
    assert stands_still([{"lr": 0.1, "teacher_momentum": 1.0}]).startswith("the teacher has momentum 1")
    assert stands_still([{"lr": 0.1, "teacher_momentum": 0.9999}]) == stands_still([{"lr": 0.1}]) == ""
    assert stands_still([{"step": 1}]) == stands_still([{"lr": None, "teacher_momentum": None}]) == ""
