"""The command: what reaches the training, and what is printed instead."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from sslkit import launch
from sslkit.cli import train as train_command
from sslkit.cli.main import main
from sslkit.recipe.sections import BuiltRecipe, Evaluation

TINY = str(Path(__file__).parents[1] / "tiny_parts.py")


def test_print_config_is_a_recipe_that_loads(recipe, tmp_path, capsys):
    assert main(["train", recipe, "--plugin", TINY, "--seed=7", "--print_config"]) == 0
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(capsys.readouterr().out)
    assert main(["train", str(resolved), "--plugin", TINY, "--print-config"]) == 0
    assert capsys.readouterr().out == resolved.read_text()
    assert "seed: 7" in resolved.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method.help"], ["teacher", "required", "one of copy, independent"]),
        (["--method.loss.help"], ["CrossEntropy", "sslkit list losses NAME"]),
        (["--method.loss.help", "CrossEntropy"], ["temperature", "a number", "sslkit 0"]),
        (["--evaluation.evaluators.help"], ["KNN"]),
        (["--seed.help"], ["a whole number"]),
        (["--help"], ["--run-dir", "--resume", "lr_reference_batch", *(vars(Evaluation()))]),
    ],
)
def test_train_explains_its_keys(words, said, capsys):
    assert main(["train", *words]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in said)


def test_train_help_shows_every_section():
    from sslkit.cli.train import SECTIONS

    assert list(SECTIONS) == [name for name in BuiltRecipe.__dataclass_fields__]


def test_train_calls_the_loop(recipe, tmp_path, monkeypatch):
    calls = []

    def train(*arguments):
        calls.append(arguments)
        return SimpleNamespace(interrupted=len(calls) == 2)

    monkeypatch.setattr(launch, "train", train)
    monkeypatch.setattr(train_command, "_report", lambda done: 130 if done.interrupted else 0)
    words = ["train", recipe, "--plugin", TINY, "--seed", "3"]
    assert main(words) == 0
    assert main([*words, "--run-dir", str(tmp_path / "run"), "--resume"]) == 130
    (first, none, fresh), (_, folder, resume) = calls
    assert (first.root.at("seed"), none, fresh) == (3, None, False)
    assert (folder, resume) == (tmp_path / "run", True)
