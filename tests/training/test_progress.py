"""A run in progress: plain lines into a pipe, one live line in a terminal."""

from io import StringIO

import pytest
from rich.console import Console

from sslkit.clock import Clock
from sslkit.training import progress as display_module
from sslkit.training.progress import SECONDS_BETWEEN_LINES, ProgressDisplay

ROW = {"loss": 1.2345, "images_per_second": 1234.5, "data_wait_fraction": 0.126}


@pytest.fixture(autouse=True)
def clockwork(monkeypatch):
    """A step takes 3 seconds."""
    now = iter(range(0, 10**6, 3))
    monkeypatch.setattr(display_module.time, "monotonic", lambda: float(next(now)))


def played(total_steps, first, log_every, **console):
    file = StringIO()
    clock = Clock(first, total_steps, 4)
    with ProgressDisplay(clock, first, Console(file=file, width=200, **console)) as display:
        for step in range(first, total_steps):
            display.step(clock.at(step))
            if (step + 1) % log_every == 0 or step + 1 == total_steps:
                display.show(clock.at(step), ROW)
        display.say("knn [bold] 12.3")
    return file.getvalue(), display


def test_plain_lines_where_there_is_no_terminal():
    text, _ = played(total_steps=7, first=0, log_every=1)
    numbers = "loss 1.234 · 1,234 images/s · data wait 13%"
    # The first row, then one when 10 seconds have passed, and the last.
    assert text.splitlines() == [
        f"epoch 1/2 · step 1/7 · {numbers} · 0:00:18 left",
        f"epoch 2/2 · step 5/7 · {numbers} · 0:00:06 left",
        f"epoch 2/2 · step 7/7 · {numbers} · 0:00:00 left",
        "knn [bold] 12.3",
    ]


@pytest.mark.parametrize(("total", "first"), [(1, 0), (1000, 0), (1000, 990), (999, 500)])
def test_lines_are_seconds_apart_from_the_first_row_to_the_end(total, first):
    lines = [line for line in played(total, first, log_every=1)[0].splitlines() if "step" in line]
    assert len(lines) <= 3 * (total - first) / SECONDS_BETWEEN_LINES + 2
    assert f"step {first + 1}/{total}" in lines[0]
    assert f"step {total}/{total}" in lines[-1]


def test_a_live_line_in_a_terminal():
    text, display = played(total_steps=6, first=2, log_every=2, force_terminal=True)
    assert "step 6/6" not in text
    assert "loss 1.234" in text
    assert "knn" in text
    task = display.progress.tasks[0]
    assert (task.completed, task.total, task.fields["epoch"]) == (6, 6, "2/2")


def test_a_resumed_run_starts_where_it_stands():
    console = Console(file=StringIO(), force_terminal=True, width=200)
    with ProgressDisplay(Clock(6, 8, 4), 6, console) as display:
        assert display.progress.tasks[0].percentage == 75


def test_the_live_line_is_gone_after_an_error():
    console = Console(file=StringIO(), force_terminal=True)
    with pytest.raises(ZeroDivisionError), ProgressDisplay(Clock(0, 8, 4), 0, console) as display:
        1 / 0  # noqa: B018
    assert not display.progress.live.is_started
