"""Progress of long work: plain lines into a pipe, a live line in a terminal, nothing without a display."""

import subprocess
import sys
from io import StringIO

import pytest
from rich.console import Console

from sslkit.progress import WorkDisplay, loading, say, showing, stage, track, working


@pytest.fixture
def seconds(monkeypatch):
    """Return the time, which a test sets."""
    seconds = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: seconds[0])
    return seconds


def console(**options):
    return Console(file=StringIO(), width=100, **options)


def test_without_a_display_items_pass_and_nothing_is_shown(capsys):
    with stage("knn"), working("exporting"), loading():
        assert list(track("abc", "letters", 3)) == ["a", "b", "c"]
    assert capsys.readouterr() == ("", "")


def test_plain_lines_come_after_two_seconds_and_then_every_ten(seconds):
    shown = console()
    with showing(shown), stage("knn of teacher"):
        for _ in track(range(10), "birds test", 1000, size=lambda _: 100):
            seconds[0] += 3
    assert shown.file.getvalue().splitlines() == [
        "knn of teacher · birds test · 100 of 1,000 · 0:00:27 left",
        "knn of teacher · birds test · 500 of 1,000 · 0:00:15 left",
        "knn of teacher · birds test · 900 of 1,000 · 0:00:03 left",
    ]


def test_short_work_says_nothing_in_plain_lines(seconds):
    shown = console()
    with showing(shown):
        for _ in track(range(10), "birds", 10):
            seconds[0] += 0.1
    assert shown.file.getvalue() == ""


def test_work_of_unknown_length_says_how_much_is_done(seconds):
    shown = console()
    with showing(shown):
        for _ in track(range(50), "indexing birds"):
            seconds[0] += 0.125
    assert shown.file.getvalue() == "indexing birds · 16\n"


def test_indivisible_work_is_named_at_once():
    shown = console()
    with showing(shown), working("exporting to onnx"):
        assert shown.file.getvalue() == "exporting to onnx ...\n"
        with working("short", plain=False):
            assert "short" not in shown.file.getvalue()


def test_lines_are_wrapped_at_words_in_a_terminal_alone():
    for options, lines in (
        ({}, ["a note of [several] words"]),
        ({"force_terminal": True}, ["a note of", "[several] words"]),
    ):
        shown = Console(file=StringIO(), width=16, **options)
        with showing(shown):
            say("a note of [several] words")
        assert [line.rstrip() for line in shown.file.getvalue().splitlines()] == lines
    say("without a display")


def test_a_terminal_has_a_live_line_while_there_is_work(seconds):
    shown = console(force_terminal=True)
    with showing(shown) as display:
        for _ in track(range(5), "birds", 10):
            seconds[0] += 1
            assert display.progress.live.is_started
        assert not display.progress.live.is_started
        with working("exporting"):  # a second time
            assert display.progress.live.is_started
            with display.work("inside", 7):
                assert [task.description for task in display.progress.tasks] == ["exporting", "inside"]
            assert display.progress.live.is_started
    assert not display.progress.live.is_started
    assert "birds" in shown.file.getvalue()


def test_a_display_inside_another_takes_over(seconds):
    outer, inner = console(force_terminal=True), console()
    with showing(outer):
        with showing(inner), working("inside"):
            pass
        assert outer.file.getvalue() == ""
    assert inner.file.getvalue() == "inside ...\n"


def test_a_quiet_console_shows_nothing():
    shown = console(force_terminal=True, quiet=True)
    with showing(shown), working("exporting"):
        assert list(track(range(3), "birds", 3)) == [0, 1, 2]
    assert shown.file.getvalue() == ""


def test_the_live_line_is_gone_after_an_error_and_after_work_that_was_left():
    display = WorkDisplay(console(force_terminal=True))
    with pytest.raises(ZeroDivisionError), display.work("birds", 3):
        1 / 0  # noqa: B018
    assert not display.progress.live.is_started
    with showing(console(force_terminal=True)) as display:
        next(track(range(3), "birds", 3))
        assert not display.progress.live.is_started


def test_a_command_says_that_it_loads_before_pytorch_is_there(tmp_path):
    code = (
        "import sys; from io import StringIO; from rich.console import Console; from sslkit.progress import *; "
        "shown = Console(file=StringIO())\n"
        "with showing(shown), loading():\n"
        "    assert 'torch' not in sys.modules; print(shown.file.getvalue(), end='')"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "loading PyTorch ...\n"
