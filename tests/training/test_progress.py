"""A run in progress: plain lines into a pipe, one live line in a terminal."""

from io import StringIO

import pytest
from rich.console import Console

from sslkit.clock import Clock
from sslkit.progress import SECONDS_BETWEEN_LINES, WorkDisplay
from sslkit.training.progress import ProgressDisplay

ROW = {"loss": 1.2345, "images_per_second": 1234.5, "data_wait_fraction": 0.126}
NUMBERS = "loss 1.234 · 1,234 images/s · data wait 13%"


@pytest.fixture
def seconds(monkeypatch):
    """Return the time, which a test sets."""
    seconds = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: seconds[0])
    return seconds


def played(seconds, total_steps, first, log_every, **console):
    """Return what a run says whose steps take 3 seconds."""
    file = StringIO()
    clock = Clock(first, total_steps, 4)
    shown = WorkDisplay(Console(file=file, width=200, **console))
    with ProgressDisplay(clock, first, shown) as display:
        for step in range(first, total_steps):
            seconds[0] += 3
            display.step(clock.at(step))
            if (step + 1) % log_every == 0 or step + 1 == total_steps:
                display.show(clock.at(step), ROW)
        display.say("knn [bold] 12.3")
        [task] = shown.progress.tasks
    return file.getvalue(), (task.description, task.completed, task.total, task.fields["numbers"])


def test_plain_lines_where_there_is_no_terminal(seconds):
    text, _ = played(seconds, total_steps=7, first=0, log_every=1)
    # The first row, then one when 10 seconds have passed, and the last.
    assert text.splitlines() == [
        f"epoch 1/2 · step 1/7 · {NUMBERS} · 0:00:18 left",
        f"epoch 2/2 · step 5/7 · {NUMBERS} · 0:00:06 left",
        f"epoch 2/2 · step 7/7 · {NUMBERS} · 0:00:00 left",
        "knn [bold] 12.3",
    ]


@pytest.mark.parametrize(("total", "first"), [(1, 0), (1000, 0), (1000, 990), (999, 500)])
def test_lines_are_seconds_apart_from_the_first_row_to_the_end(seconds, total, first):
    lines = [line for line in played(seconds, total, first, log_every=1)[0].splitlines() if "step" in line]
    assert len(lines) <= 3 * (total - first) / SECONDS_BETWEEN_LINES + 2
    assert f"step {first + 1}/{total}" in lines[0]
    assert f"step {total}/{total}" in lines[-1]


def test_a_live_line_in_a_terminal(seconds):
    text, task = played(seconds, total_steps=6, first=2, log_every=2, force_terminal=True)
    assert "step 6/6" not in text
    assert "knn" in text
    assert task == ("epoch 2/2", 6, 6, NUMBERS)


def test_a_resumed_run_starts_where_it_stands():
    shown = WorkDisplay(Console(file=StringIO(), force_terminal=True, width=200))
    with ProgressDisplay(Clock(6, 8, 4), 6, shown):
        assert shown.progress.tasks[0].percentage == 75
        assert shown.progress.tasks[0].description == "epoch 2/2"


def test_the_live_line_is_gone_after_an_error():
    shown = WorkDisplay(Console(file=StringIO(), force_terminal=True))
    with pytest.raises(ZeroDivisionError), ProgressDisplay(Clock(0, 8, 4), 0, shown):
        1 / 0  # noqa: B018
    assert not shown.progress.live.is_started


def test_a_row_of_results_fits_into_80_columns():
    file = StringIO()
    metrics = {f"knn/top{n}@{k}": 100.0 for k in (10, 20, 100, 200) for n in (1, 5)}
    with ProgressDisplay(Clock(0, 800, 4), 0, WorkDisplay(Console(file=file, width=80))) as display:
        display.say_result(Clock(800, 800, 4), {"network": "teacher", "metrics": metrics})
    assert file.getvalue() == "epoch 200 · teacher · knn/top1@10 100.0 · knn/top5@10 100.0\n"
