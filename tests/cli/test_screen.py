"""Headings, columns and text at the width of the terminal."""

import pytest
from rich.text import Text

from sslkit.cli.screen import MAX_WIDTH, Screen


@pytest.fixture
def screen(monkeypatch, capsys):
    def screen(columns):
        monkeypatch.setenv("COLUMNS", str(columns))

        def lines():
            return [line.rstrip() for line in capsys.readouterr().out.splitlines()]

        return Screen(), lines

    return screen


def test_columns_are_aligned_and_the_first_is_not_wrapped(screen):
    shown, lines = screen(30)
    shown.columns([("name", "a text that does not fit"), (Text("longer-name"), "x")])
    assert lines() == ["  name         a text that", "               does not fit", "  longer-name  x"]


def test_columns_that_are_empty_take_no_room(screen):
    shown, lines = screen(80)
    shown.columns([("a", "", "c"), ("bb", "", "d")])
    shown.columns([])
    assert lines() == ["  a   c", "  bb  d", "  none"]


def test_nothing_is_wider_than_is_pleasant_to_read_and_code_is_not_wrapped(screen):
    shown, lines = screen(300)
    shown.text("word " * 60)
    shown.code("x" * 200)
    text, *more, code = lines()
    assert more
    assert max(map(len, [text, *more])) <= MAX_WIDTH
    assert code == "  " + "x" * 200


def test_brackets_are_text(screen):
    shown, lines = screen(80)
    shown.heading("[bold]a", "[b]")
    shown.text("[red]c")
    shown.code("[d] [/d]")
    assert lines() == ["[bold]a  [b]", "  [red]c", "  [d] [/d]"]
