"""The explain command: what a recipe will do, what speaks against it, and a recipe that answers that."""

from pathlib import Path

import pytest
import yaml

from sslkit.cli.main import main

TINY = str(Path(__file__).parents[1] / "tiny_parts.py")


def test_a_plugin_file_stays_in_the_command(recipe, explained):
    out = explained(recipe)
    assert "over lasts as long as the run or longer: 24 of 16 steps" in out
    assert f"sslkit train {recipe} --plugin {TINY} \\ --method.collapse.temperature.over '2 steps'" in out
    assert "--method.collapse.temperature.every step" in out


def test_proposals_are_applied_when_asked(dino, explained, tmp_path):
    file = tmp_path / "mended.yaml"
    words = ["--num-images", "1000", "--method.collapse.temperature", "0.08", "--seed", "5"]
    assert f"Written: {file}" in explained(dino, *words, "--apply", str(file))
    values = yaml.safe_load(file.read_text())
    assert (values["base"], values["seed"], values["data"]) == ("dino.yaml", 5, {"num_images": 1000})
    again = explained(str(file))
    assert "Warnings" not in again
    assert "Proposals" not in again
    assert "40 x 40" not in again

    text = file.read_text()
    assert "exists already and is not overwritten" in explained(dino, *words, "--apply", str(file), code=2)
    assert file.read_text() == text
    other = tmp_path / "other.yaml"
    assert f"There is nothing to propose: {other} was not written" in explained(str(file), "--apply", str(other))
    assert not other.exists()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--num-images", "many"], "--num-images must be a whole number of at least 1, not 'many'"),
        (["--processes", "0"], "--processes must be a whole number of at least 1, not '0'"),
        (["--apply", "plan.txt"], "--apply plan.txt: a recipe is a YAML file, such as plan.yaml"),
        (["--apply", "nowhere/plan.yaml"], "there is no folder nowhere"),
        (["--apply", "new.yaml", "--data", "nowhere"], "--apply: what to propose depends on the number of images"),
    ],
)
def test_mistakes(words, said, recipe, capsys):
    assert main(["explain", recipe, "--plugin", TINY, *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == 1
    assert not Path("new.yaml").exists()
