import math

import numpy as np
import pytest

from sslkit.clock import Clock
from sslkit.errors import NotSupported, RecipeError
from sslkit.recommendation import RunContext
from sslkit.schedules import Constant, Cosine, Schedule, Warmup, check_range, levels_of, rewritten, value_at


def values(schedule, total_steps, steps_per_epoch):
    return [schedule(Clock(step, total_steps, steps_per_epoch)) for step in range(total_steps)]


def cosine_table(peak, end, total, warmup, warmup_from):
    """The whole schedule at once, as published code tabulates it: a line, then a cosine over what is left."""
    line = np.linspace(warmup_from, peak, warmup)
    moments = np.arange(total - warmup)
    curve = np.array([end + 0.5 * (peak - end) * (1 + math.cos(math.pi * i / len(moments))) for i in moments])
    return np.concatenate([line, curve])


@pytest.mark.parametrize(
    ("peak", "end", "epochs", "per_epoch", "warmup_epochs"),
    [(5e-4, 1e-6, 13, 7, 3), (0.04, 0.4, 5, 9, 0), (0.996, 1.0, 4, 11, 0), (0.3, 0.0, 6, 5, 1), (2.0, 0.1, 3, 1, 2)],
)
def test_cosine_is_the_table_of_the_published_code(peak, end, epochs, per_epoch, warmup_epochs):
    schedule = Cosine(peak, end, warmup=f"{warmup_epochs} epochs")
    expected = cosine_table(peak, end, epochs * per_epoch, warmup_epochs * per_epoch, 0.0)
    np.testing.assert_allclose(values(schedule, epochs * per_epoch, per_epoch), expected, rtol=1e-14)


def test_cosine_by_hand():
    schedule = Cosine(1.0, 0.0, warmup="3 steps", warmup_from=0.2)
    half = (1 + math.sqrt(0.5)) / 2
    # The line ends at the peak and the cosine begins there: it is held twice. The end is not reached.
    assert values(schedule, 7, 7) == pytest.approx([0.2, 0.6, 1.0, 1.0, half, 0.5, 1 - half], abs=1e-15)


def test_cosine_per_epoch_holds_its_value_within_an_epoch():
    schedule = Cosine(0.03, 0.0, every="epoch")
    expected = [0.03 * 0.5 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4) for _ in range(5)]
    assert values(schedule, 20, 5) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    ("start", "end", "over", "epochs"), [(0.04, 0.07, 3, 6), (0.04, 0.07, 1, 3), (0.04, 0.04, 0, 3)]
)
def test_warmup_is_a_line_over_epochs_then_its_end(start, end, over, epochs):
    per_epoch = 4
    table = np.concatenate([np.linspace(start, end, over), np.ones(epochs - over) * end])
    expected = [table[step // per_epoch] for step in range(epochs * per_epoch)]
    got = values(Warmup(start, end, f"{over} epochs"), epochs * per_epoch, per_epoch)
    np.testing.assert_allclose(got, expected, rtol=1e-14)


def test_warmup_by_hand_and_per_step():
    assert values(Warmup(0.0, 1.0, "3 steps", every="step"), 5, 5) == [0.0, 0.5, 1.0, 1.0, 1.0]


@pytest.mark.parametrize("duration", ["300 steps", "1 step", "2.5 epochs", "0.4 epochs"])
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda duration, every: Warmup(0.04, 0.07, duration, every), "Warmup moves once an epoch, so its over"),
        (lambda duration, every: Cosine(1, 0, duration, every=every), "Cosine moves once an epoch, so its warmup"),
    ],
)
def test_what_moves_once_an_epoch_takes_whole_epochs(make, said, duration):
    with pytest.raises(RecipeError, match=f"{said} is a whole number of epochs, not {duration[:3]}.* every: step"):
        make(duration, "epoch")
    for every, taken in (("step", duration), ("epoch", "3 epochs"), ("epoch", "0 steps")):
        make(taken, every)


@pytest.mark.parametrize("total", [2, 10, 100])
@pytest.mark.parametrize("schedule", [Warmup(0.1, 0.2, "99 epochs"), Cosine(1, 0, "99 epochs", every="epoch")])
def test_a_shorter_length_is_proposed_in_steps_only_with_every_step(schedule, total):
    [recommendation] = schedule.recommend(RunContext(100, 10, Clock(0, total, 10)))
    again = type(schedule)(**{**vars(schedule), **recommendation.changes})
    assert again.every == ("epoch" if total == 100 else "step")
    assert not [*again.recommend(RunContext(100, 10, Clock(0, total, 10)))]


def test_scaling_multiplies_the_peak_and_what_it_rises_from_but_not_what_it_falls_to():
    lr = Cosine(0.0005, 1e-6, warmup="2 epochs").scaled(4)
    np.testing.assert_allclose(values(lr, 40, 8), cosine_table(0.002, 1e-6, 40, 16, 0.0), rtol=1e-14)
    small = values(Cosine(4.8, 0.0048, "10 epochs", 0.3).scaled(1 / 32), 40, 2)
    np.testing.assert_allclose(small, cosine_table(0.15, 0.0048, 40, 20, 0.3 / 32), rtol=1e-14)
    assert small[:20] == sorted(small[:20])
    assert Constant(3.0).scaled(0.5)(Clock()) == 1.5
    assert values(Warmup(0.1, 1.0, "2 steps", every="step").scaled(2), 3, 3) == [0.2, 2.0, 2.0]


def test_a_schedule_without_a_peak_refuses_to_be_scaled():
    class Zigzag(Schedule):
        def __call__(self, clock):
            return clock.step % 2

    with pytest.raises(NotSupported, match="Zigzag"):
        Zigzag().scaled(2)


def test_value_at_takes_numbers_and_schedules():
    clock = Clock(1, 10, 5)
    assert value_at(0.3, clock) == 0.3
    assert value_at(Warmup(0, 1, "3 steps", every="step"), clock) == 0.5


def test_levels_are_the_values_between_which_a_schedule_runs():
    assert dict(Constant(0.3).levels) == {"value": 0.3}
    assert dict(Cosine(0.9, 1.0, warmup_from=0.5).levels) == {"start": 0.9, "end": 1.0}
    assert dict(Cosine(0.9, 1.0, "3 epochs").levels) == {"start": 0.9, "end": 1.0, "warmup_from": 0}
    assert dict(Cosine(0.9, 1.0, "3 epochs", warmup_from=0.5).levels) == {"start": 0.9, "end": 1.0, "warmup_from": 0.5}
    assert dict(Warmup(0.04, 0.07, "3 epochs").levels) == {"start": 0.04, "end": 0.07}


def test_levels_are_named_as_a_recipe_names_them():
    assert levels_of("lr", 0.3) == {"lr": 0.3}
    assert levels_of("lr", Warmup(0.1, 0.2, "1 epochs")) == {"lr.start": 0.1, "lr.end": 0.2}
    assert levels_of("lr", None) == levels_of("lr", "synchronized") == {}


def test_a_number_or_the_levels_of_a_schedule_are_rewritten_as_a_recipe_says_them():
    class Silent(Schedule):
        def __call__(self, clock):
            return 1.0

    assert rewritten(0.25, lambda level: level * 2) == 0.5
    assert rewritten(Cosine(0.25, 1), lambda level: level * 2) == {"Cosine": {"start": 0.5, "end": 2}}
    assert rewritten(Silent(), lambda level: level * 2) is None


@pytest.mark.parametrize(
    ("interval", "inside", "outside"),
    [
        ("[0, 1]", [0, 1, 0.5, None, True], [-1e-9, 1.1, float("inf"), float("nan")]),
        ("[0, 1)", [0, 0.999], [1, -1, float("nan")]),
        ("(0, inf)", [1e-300, 1e300, 10**300], [0, -1, float("inf"), float("-inf"), float("nan")]),
        ("[1, inf)", [1, Cosine(1, 2)], [0, Cosine(1, 0.5), Constant(float("inf"))]),
    ],
)
def test_numbers_are_in_their_interval(interval, inside, outside):
    for number in inside:
        check_range("Some", "thing", number, interval)
    for number in outside:
        with pytest.raises(ValueError, match=r"^the thing[.\w]* of Some lies in ") as refused:
            check_range("Some", "thing", number, interval)
        assert f" lies in {interval}, not " in str(refused.value)
