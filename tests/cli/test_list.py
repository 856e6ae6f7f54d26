"""Components and recipes on the screen."""

import re
from pathlib import Path

from sslkit.cli.main import main
from sslkit.hookspecs import KINDS
from sslkit.recipe.files import builtin_recipes

TINY = str(Path(__file__).parents[1] / "tiny_parts.py")


def test_list_at_80_columns_folds_no_word(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("recipes")
    assert "  Centering     softmax((logits - center) / temperature)" in re.sub(r"(?<=\w) {5,}", "     ", out)
    assert out.index("  quickstart ") < out.index("  quickstart-objects ")


def test_list_shows_every_component_and_recipe(capsys):
    assert main(["list", "--plugin", TINY]) == 0
    out = capsys.readouterr().out
    for word in [
        *(kind.command for kind in KINDS),
        *builtin_recipes(),
        "CrossEntropy",
        "TinyHead",
        "A mean over pixels",
    ]:
        assert word in out, word
    assert "tiny_parts.py" in out


def test_list_shows_one_kind_and_one_component(capsys):
    assert main(["list", "collapse-operators"]) == 0
    out = capsys.readouterr().out
    assert "SinkhornKnopp" in out
    assert "CrossEntropy" not in out
    assert main(["list", "backbone", "TinyBackbone", "--plugin", TINY]) == 0
    out = capsys.readouterr().out
    assert "F, at least 1. (a whole number)" in out
    assert "from data.channels" in out
    assert main(["list", "callbacks", f"--plugin={TINY}"]) == 0


def test_formulas_stand_as_they_were_written_and_backticks_are_gone(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list", "evaluators", "KNN"]) == 0
    out = capsys.readouterr().out
    lines = [line.rstrip() for line in out.splitlines()]
    first = lines.index("      similarity = cosine of frozen features, eval mode, no augmentation")
    assert lines[first + 1] == "      vote       = sum of exp(similarity / temperature) over the k nearest"
    assert main(["list", "heads", "DINOHead"]) == 0
    assert "`" not in out + capsys.readouterr().out
