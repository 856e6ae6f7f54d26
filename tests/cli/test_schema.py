"""The schema on the screen and in a file."""

import json
from pathlib import Path

import pytest

from sslkit.cli.main import main

TINY = str(Path(__file__).parents[1] / "tiny_parts.py")


def test_it_is_printed_or_written(tmp_path, capsys):
    assert main(["schema"]) == 0
    printed = capsys.readouterr().out
    file = tmp_path / "recipe.schema.json"
    file.write_text("old")
    assert main(["schema", "--output", str(file)]) == 0
    assert capsys.readouterr().out == ""
    assert file.read_text() == printed
    assert [path.name for path in tmp_path.iterdir()] == [file.name]
    assert printed.isascii()
    assert "TinyLoss" not in printed
    assert json.loads(printed)["title"] == "sslkit recipe"


def test_plugin_files_are_in_it(capsys):
    assert main(["schema", "--plugin", TINY]) == 0
    assert "losses.TinyLoss" in json.loads(capsys.readouterr().out)["definitions"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["x"], "sslkit schema takes no argument, not 'x'"),
        (["--output", "nowhere/x.json"], "--output nowhere/x.json: nowhere is not a folder"),
        (["--outptu", "x.json"], "Did you mean '--output'?"),
    ],
)
def test_mistakes(words, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["schema", *words]) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
