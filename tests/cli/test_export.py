"""The command: what it prints, where it writes, and one message for each mistake."""

import json
from pathlib import Path

import pytest
import timm
from bad_weights import KINDS, make

from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.cli.main import main
from sslkit.exporting import hub_folder


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")


@pytest.fixture
def run(tmp_path):
    preprocessing = {"channels": 3, "mean": [0.5] * 3, "std": [0.2] * 3, "value_range": None, "size": 32, "resize": 36}
    for network in ("teacher", "student"):
        TimmBackbone("test_vit", model_args={"depth": 1}).save(tmp_path / "run" / network)
    (tmp_path / "run" / "recipe.yaml").write_text("data: {train: Textures}\n")
    (tmp_path / "run" / "data.json").write_text(json.dumps(preprocessing))
    return tmp_path / "run"


@pytest.fixture
def pushed(monkeypatch):
    asked = []

    def push(folder, repository, private):
        asked.append((Path(folder).name, repository, private))
        return f"https://huggingface.co/{repository}"

    monkeypatch.setattr(hub_folder, "push", push)
    return asked


def export(*words):
    return main(["export", *map(str, words)])


def test_the_screen_says_what_lies_where_and_how_it_is_used(run, capsys):
    assert export(run) == 0
    shown = capsys.readouterr().out
    folder = run.with_name("run-teacher-timm")
    assert shown.startswith("Exported  teacher · timm\n")
    assert {line.split()[0] for line in shown.splitlines()[1:4]} == {path.name for path in folder.iterdir()}
    assert "features differ by at most 0.0e+00 of their" in shown
    assert f"Folder: {folder}\n" in shown
    use = shown.partition("Use:")[2].strip()
    assert eval(use, {"timm": timm}).pretrained_cfg["input_size"] == (3, 32, 32)


def test_options_reach_the_export(run, tmp_path, capsys):
    out = tmp_path / "there"
    assert export(run, "--to=hf", "--network", "student", "--out", out, "--license", "mit") == 0
    card = (out / "README.md").read_text()
    assert "license: mit\n" in card
    assert "the student of a run" in card
    assert f"hf upload OWNER/NAME {out}" in capsys.readouterr().out


@pytest.mark.parametrize("private", [False, True])
def test_a_push_comes_after_the_export(private, run, pushed, capsys):
    assert export(run, "--to", "hf", "--push", "me/birds", *["--private"] * private) == 0
    assert pushed == [("run-teacher-hf", "me/birds", private)]
    shown = capsys.readouterr().out
    assert shown.endswith("Pushed to: https://huggingface.co/me/birds\n")
    assert "hf upload" not in shown
    assert "hf-hub:me/birds" in (run.with_name("run-teacher-hf") / "README.md").read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "timm"], "takes one RUN, a run folder, not nothing"),
        (["{run}", "b"], "takes one RUN, a run folder, not '{run}' and 'b'"),
        (["{run}", "--too", "hf"], "unknown option '--too'. Did you mean '--to'"),
        (["{run}", "--out"], "--out needs a value"),
        (["{run}", "--to", "onx"], "unknown target 'onx'. Did you mean 'onnx'"),
        (["{run}", "--license", "mit"], "--license is for the Hugging Face Hub: add --to hf"),
        (["{run}", "--to", "onnx", "--push", "me/birds"], "--push is for the Hugging Face Hub: add --to hf"),
        (["{run}", "--private", "--to", "hf"], "--private is for a new repository: add --push OWNER/NAME"),
        (["{run}", "--to", "hf", "--push", "birds"], "--push takes OWNER/NAME"),
        (["{run}", "--to", "hf", "--push", ""], "--push"),
        (["{run}/../nowhere"], "nowhere does not exist. RUN is a run folder"),
        (["{run}/.."], "holds neither a run nor a backbone"),
        (["{run}", "--network", "pupil"], "unknown network 'pupil'"),
        (["{run}", "--out", "{run}"], "is there already"),
    ],
)
def test_mistakes_are_one_message(words, message, run, pushed, capsys):
    assert export(*(word.format(run=run) for word in words)) == 2
    error = capsys.readouterr().err
    assert message.format(run=run) in error
    assert error.count("\n") == 1
    assert [path.name for path in run.parent.iterdir()] == ["run"]
    assert pushed == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_bad_file_is_one_message(kind, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    file, said = make(kind, tmp_path)
    assert export(file) == 2
    error = capsys.readouterr().err
    assert str(file) in error
    assert said in error
    assert error.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == [file.name]


def test_alone_it_shows_its_help(capsys):
    assert main(["export", "--help"]) == 0
    shown = capsys.readouterr().out
    assert main(["export"]) == 2
    assert capsys.readouterr().out == shown
    for word in ("timm", "hf", "onnx", "--to", "--network", "--out", "--push", "--license", "--private"):
        assert word in shown
