"""When a run logs, saves and evaluates."""

import pytest

from sslkit.clock import Clock
from sslkit.training.intervals import Intervals


@pytest.mark.parametrize(("every", "logged"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [1, 3, 6, 7]), (50, [1, 7])])
def test_every_so_many_steps_the_first_and_the_last_are_logged(every, logged):
    assert [step + 1 for step in range(7) if Intervals(log_every=every).logs(Clock(step, 7, 3))] == logged


@pytest.mark.parametrize(
    ("every", "due"),
    [("2 steps", [0, 2, 4, 6]), ("1 epochs", [0, 3, 6]), ("0 steps", range(7)), ("9 steps", [0]), (None, [])],
)
def test_a_duration_falls_between_steps_and_never_at_the_end(every, due):
    intervals = Intervals(checkpoint_every=every, evaluate_every=every)
    assert [step for step in range(9) if intervals.saves(Clock(step, 7, 3))] == [*due]
    assert [step for step in range(9) if intervals.evaluates(Clock(step, 7, 3))] == [*due]


@pytest.mark.parametrize(
    ("log_every", "rank_every", "measured"),
    [(1, 3, [1, 3, 6, 9, 12, 13]), (2, 3, [1, 4, 6, 10, 12, 13]), (5, 1, [1, 5, 10, 13]), (1, 99, [1, 13])],
)
def test_the_rank_is_measured_at_the_first_row_after_every_so_many_steps(log_every, rank_every, measured):
    clocks = [Clock(step, 13, 3) for step in range(13)]
    intervals = Intervals(log_every, rank_every)
    rows = [clock for clock in clocks if intervals.logs(clock)]
    assert [clock.step + 1 for clock in rows if intervals.measures_rank(clock)] == measured


def test_processes_agree_where_any_of_them_waits_anyway():
    intervals = Intervals(log_every=5, checkpoint_every="4 steps", evaluate_every="2 epochs")
    assert [step for step in range(13) if intervals.synchronizes(Clock(step, 13, 3))] == [0, 4, 5, 6, 8, 10, 12]
