"""The momentum that fits the length of a run."""

import pytest
from advice import reasons, run, the_recommendation

from sslkit import (
    EMA,
    Clock,
    Cosine,
    RunContext,
)
from sslkit.teachers.ema_advice import half_life


@pytest.mark.parametrize(
    ("momentum", "proposed"),
    [
        (0.999, 0.946),  # 0.5 ** (8 / 100)
        (1.0, 0.946),
        (Cosine(0.999, 1.0), {"Cosine": {"start": 0.946, "end": 1.0}}),
        (Cosine(0.999, 0.9999), {"Cosine": {"start": 0.946, "end": 0.9945}}),
    ],
)
def test_a_teacher_that_cannot_follow_within_the_run_gets_a_half_life_of_an_eighth(momentum, proposed):
    context = run(batch=100, epochs=1, images=10_000)
    assert the_recommendation(EMA(momentum), context).changes == {"momentum": proposed}
    schedule = Cosine(**proposed["Cosine"]) if isinstance(proposed, dict) else proposed
    assert reasons(EMA(schedule), context) == []


def test_a_long_run_gets_the_published_half_life_and_none_shorter_than_byols():
    assert the_recommendation(EMA(1.0), run(1024, 300)).changes == {"momentum": 0.996}
    assert the_recommendation(EMA(1.0), run(256, 200)).changes == {"momentum": 0.999}
    assert the_recommendation(EMA(1.0), run(64, 100, 2_000)).changes == {"momentum": 0.97}


@pytest.mark.parametrize("total", range(1, 30))
def test_what_is_proposed_for_a_short_run_settles_it(total):
    context = RunContext(100, 10, Clock(0, total, 10))
    for start in (0.9999, 0.99, 0.9):
        for recommendation in EMA(Cosine(start, 1.0)).recommend(context):
            assert reasons(EMA(Cosine(**recommendation.changes["momentum"]["Cosine"])), context) == []


def test_a_momentum_keeps_its_half_life_in_epochs():
    written = run(1024, 300)
    recommendation = the_recommendation(EMA(Cosine(0.996, 1.0)), run(256, 300, written_for=written))
    assert not recommendation.is_warning
    assert recommendation.source == "DINO's published code advises 0.9995 for batches of 256"
    start = recommendation.changes["momentum"]["Cosine"]["start"]
    assert recommendation.changes == {"momentum": {"Cosine": {"start": 0.999, "end": 1.0}}}
    assert half_life(start) / 5004 == pytest.approx(half_life(0.996) / 1251, rel=0.01)
    # Both ends in proportion, a constant as well; nothing faster than what has been published.
    other = the_recommendation(EMA(Cosine(0.99, 0.999)), run(1024, 300, written_for=run(512, 300))).changes
    assert other == {"momentum": {"Cosine": {"start": 0.98, "end": 0.998}}}
    assert the_recommendation(EMA(0.999), run(1024, 300, 30_000, written_for=written)).changes == {"momentum": 0.97}


@pytest.mark.parametrize("batch", [1024, 1200, 900])
def test_a_momentum_is_left_alone_in_epochs_of_about_the_same_length(batch):
    assert reasons(EMA(0.996), run(batch, written_for=run(1024))) == []
    assert reasons(EMA(0.96), run(1024, images=20_000, written_for=run(1024))) == []  # already short
    assert reasons(EMA(0.996), run(64)) == []  # not known what it was written for


def test_half_life_by_hand():
    assert half_life(0.5) == pytest.approx(1)
    assert half_life(0.996) == pytest.approx(172.94, abs=0.01)
    assert half_life(1.0) == float("inf")
    assert 0 < half_life(0.0) < 0.01


def test_half_life_is_that_of_the_moment():
    half = run().at(375_300 // 2)
    assert dict(EMA(Cosine(0.996, 1.0)).describe(half)) == {"teacher half-life": "346 steps, 0.28 epochs"}
