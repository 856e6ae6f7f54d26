"""A run in numbers, and how lengths and counts are said."""

from itertools import pairwise

import pytest

from sslkit.clock import Clock, Duration
from sslkit.recommendation import Component, Recommendation, RunContext, counted, power_of_two, too_long


def context(total=100, per_epoch=10, **more):
    return RunContext(num_images=640, batch_size=64, clock=Clock(0, total, per_epoch), **more)


def test_a_process_sees_its_share_of_a_batch_cut_into_micro_batches():
    assert context().local_images == 64
    assert context(processes=4, micro_batches=3).local_images == 5
    assert context(processes=64, micro_batches=2).local_images == 1


@pytest.mark.parametrize(("total", "count"), [(1, 1), (2, 2), (7, 7), (100, 100), (12_345, 100)])
def test_moments_run_from_the_first_step_to_the_last(total, count):
    steps = [moment.step for moment in context(total).moments()]
    assert (steps[0], steps[-1], len(steps)) == (0, total - 1, count)
    assert steps == sorted({*steps})
    assert all(b - a <= total / 99 + 1 for a, b in pairwise(steps))


@pytest.mark.parametrize(
    ("total", "per_epoch", "share", "said"),
    [
        (3000, 10, 0.1, "30 epochs"),
        (24, 10, 0.5, "1 epochs"),
        (24, 10, 0.1, "2 steps"),
        (3, 10, 0.1, "0 steps"),
    ],
)
def test_a_share_of_the_run_is_whole_epochs_or_steps(total, per_epoch, share, said):
    assert str(context(total, per_epoch).share(share)) == said


def test_lengths_and_counts_are_said_with_few_digits():
    assert context().span(25) == "25 steps, 2.5 epochs"
    assert context(10_000, 7).span(1234.4) == "1,234 steps, 1.8e+02 epochs"
    assert context().span(100) == "100 steps, 10 epochs"
    assert context().span(100.1) == context().span(float("inf")) == "longer than the run"
    assert [counted(number) for number in (0.01234, 3, 99.95, 65536)] == ["0.0123", "3", "100", "65,536"]
    assert [power_of_two(number) for number in (0, 0.3, 1, 2, 3.99, 4, 500, 512)] == [1, 1, 1, 2, 2, 4, 256, 512]


@pytest.mark.parametrize(
    ("duration", "warnings", "changes"),
    [
        ("3.33 epochs", [], []),  # 33 of 100 steps
        ("34 steps", [False], [{"x.warmup": "1 epochs"}]),
        ("99 steps", [False], [{"x.warmup": "1 epochs"}]),
        ("10 epochs", [True], [{"x.warmup": "1 epochs"}]),
        ("500 epochs", [True], [{"x.warmup": "1 epochs"}]),
    ],
)
def test_a_beginning_may_take_a_third_of_the_run(duration, warnings, changes):
    found = list(too_long("x.warmup", Duration.parse(duration), context()))
    assert [recommendation.is_warning for recommendation in found] == warnings
    assert [recommendation.changes for recommendation in found] == changes
    for recommendation in found:
        assert list(too_long("x.warmup", Duration.parse(recommendation.changes["x.warmup"]), context())) == []


@pytest.mark.parametrize("total", range(1, 40))
def test_what_is_proposed_for_a_beginning_settles_it(total):
    run = context(total, 3)
    for recommendation in too_long("warmup", Duration(total, "steps"), run):
        assert list(too_long("warmup", Duration.parse(recommendation.changes["warmup"]), run)) == []


def test_a_concern_names_its_source_and_a_part_has_nothing_to_say_by_itself():
    assert str(Recommendation("it is late", "a clock")) == "it is late (a clock)"
    assert str(Recommendation("it is late")) == "it is late"
    assert [*Component().describe(context()), *Component().recommend(context())] == []
