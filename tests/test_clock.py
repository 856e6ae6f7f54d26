import pytest

from sslkit.clock import Clock, Duration
from sslkit.errors import RecipeError


def test_epochs_of_a_run_that_stops_within_one():
    epochs, ends = [], []
    for step in range(11):
        clock = Clock(step, total_steps=11, steps_per_epoch=4)
        epochs.append(clock.epoch)
        ends.append(clock.is_epoch_end)
    assert epochs == [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]
    assert [step for step, end in enumerate(ends) if end] == [3, 7]
    assert Clock(0, 11, 4).total_epochs == 3
    assert Clock(0, 12, 4).total_epochs == 3


def test_at_moves_only_the_step():
    assert Clock(3, 100, 7).at(50) == Clock(50, 100, 7)


@pytest.mark.parametrize(
    ("text", "steps", "epochs"),
    [
        ("30 epochs", 210, 30),
        ("1 epoch", 7, 1),
        ("0.5 epochs", 4, 0.5),
        ("5000 steps", 5000, 5000 / 7),
        (" 1  step ", 1, 1 / 7),
        ("0 steps", 0, 0),
        ("1e3 steps", 1000, 1000 / 7),
    ],
)
def test_a_duration_in_steps_and_epochs(text, steps, epochs):
    duration = Duration.parse(text)
    clock = Clock(0, 1000, steps_per_epoch=7)
    assert duration.steps(clock) == steps
    assert duration.epochs(clock) == pytest.approx(epochs)


def test_a_duration_survives_being_written_and_read():
    for text in ("30 epochs", "0.5 epochs", "5000 steps"):
        assert str(Duration.parse(text)) == text
        assert Duration.parse(Duration.parse(text)) == Duration.parse(text)


@pytest.mark.parametrize(
    "text", ["", "30", "epochs", "-1 epochs", "30epochs", "3 minutes", "ten steps", "nan epochs", "inf steps"]
)
def test_what_is_no_duration_is_refused_by_name(text):
    with pytest.raises(RecipeError, match="30 epochs") as error:
        Duration.parse(text)
    assert repr(text) in str(error.value)
