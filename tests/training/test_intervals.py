"""When a run logs, saves and evaluates."""

import pytest

from sslkit.clock import Clock
from sslkit.training.intervals import has_rank, is_due, is_logged


@pytest.mark.parametrize(("every", "logged"), [(1, [1, 2, 3, 4, 5, 6, 7]), (3, [1, 3, 6, 7]), (50, [1, 7])])
def test_every_so_many_steps_the_first_and_the_last_are_logged(every, logged):
    assert [step + 1 for step in range(7) if is_logged(Clock(step, 7, 3), every)] == logged


@pytest.mark.parametrize(
    ("every", "due"),
    [("2 steps", [0, 2, 4, 6]), ("1 epochs", [0, 3, 6]), ("0 steps", range(7)), ("9 steps", [0]), (None, [])],
)
def test_a_duration_falls_between_steps_and_never_at_the_end(every, due):
    assert [step for step in range(9) if is_due(every, Clock(step, 7, 3))] == [*due]


@pytest.mark.parametrize(
    ("log_every", "rank_every", "told"),
    [(1, 3, [1, 3, 6, 9, 12, 13]), (2, 3, [1, 4, 6, 10, 12, 13]), (5, 1, [1, 5, 10, 13]), (1, 99, [1, 13])],
)
def test_costly_numbers_are_told_at_the_first_row_after_every_so_many_steps(log_every, rank_every, told):
    clocks = [Clock(step, 13, 3) for step in range(13)]
    rows = [clock for clock in clocks if is_logged(clock, log_every)]
    assert [clock.step + 1 for clock in rows if has_rank(clock, log_every, rank_every)] == told
