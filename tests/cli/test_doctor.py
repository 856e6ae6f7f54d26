"""The doctor command: one screen a run, and a figure."""

import json
import math

import pytest

from sslkit.cli.main import main
from sslkit.recipe import load

K = 16


@pytest.fixture
def ill(tmp_path):
    """Return the folder of a run that collapsed to one prototype."""
    folder = tmp_path / "ill"
    folder.mkdir()
    overrides = ["--method.collapse.momentum", "1.0"]
    (folder / "recipe.yaml").write_text(load("quickstart", overrides).to_yaml())
    numbers = {"loss": 0.01, "target_entropy": 0.0, "target_kl": 0.01, "marginal_entropy": 0.0, "prototype_use": 1 / K}
    rows = [{"step": step, "epoch": step / 62, **numbers} for step in range(10, 301, 10)]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_it_says_what_happened_why_and_what_to_try(ill, capsys):
    assert main(["doctor", str(ill)]) == 0
    screen = capsys.readouterr().out
    assert "ill  step 300 of 1550" in screen
    assert "one-dimension collapse  the targets of a batch name 1 prototypes together" in screen
    assert "method.collapse: a center with momentum 1 follows too slowly" in screen
    assert f"sslkit train {ill}/recipe.yaml \\\n      --method.collapse.momentum 0.9" in screen
    table = [line.split() for line in screen.splitlines() if line.startswith("  10 ") or line.startswith("  300 ")]
    assert [row[:2] for row in table] == [["10", "0.010"], ["300", "0.010"]]
    assert screen.rstrip().endswith(f"Figure: {ill}/doctor.png")
    assert (ill / "doctor.png").stat().st_size > 1000


def test_a_run_without_an_ailment_gets_no_advice(ill, capsys):
    rows = [json.loads(line) for line in (ill / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {"marginal_entropy": math.log(K), "prototype_use": 1.0, "target_kl": 0.3}
    (ill / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert main(["doctor", str(ill), "--figure", str(ill / "a.svg")]) == 0
    screen = capsys.readouterr().out
    assert "\n  healthy" in screen
    assert "To try" not in screen
    assert (ill / "a.svg").exists()


def test_no_gain_is_told_without_a_cause_where_none_is_known(ill, capsys):
    (ill / "recipe.yaml").write_text(load("quickstart").to_yaml())
    rows = [json.loads(line) for line in (ill / "metrics.jsonl").read_text().splitlines()]
    for row in rows:
        row |= {"marginal_entropy": math.log(K), "prototype_use": 1.0, "target_kl": 0.3}
    (ill / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    scores = (("untrained", 0, 26.6), ("raw-pixels (plain)", 0, 32.6), ("teacher", 300, 31.0))
    results = [{"network": n, "step": step, "protocol": "p", "metrics": {"top1": value}} for n, step, value in scores]
    (ill / "results.json").write_text(json.dumps(results))
    assert main(["doctor", str(ill)]) == 0
    screen = capsys.readouterr().out
    assert "no gain shown  top1 of the teacher is 31.0, that of raw-pixels (plain) 32.6" in screen
    assert "cause" not in screen


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--figur", "a.png"], "unknown option '--figur'. Did you mean '--figure'?"),
        (["--figure", "a.png"], "takes at least one RUN"),
        (["no-such-run"], "no-such-run holds no run"),
    ],
)
def test_mistakes_are_told(words, message, capsys):
    assert main(["doctor", *words]) == 2
    assert message in capsys.readouterr().err


def test_nothing_is_printed_for_a_figure_that_cannot_be_drawn(ill, capsys):
    assert main(["doctor", str(ill), "--figure", str(ill / "a.bmp")]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert ".png, .svg, .pdf" in captured.err


def test_alone_it_shows_its_help(capsys):
    assert main(["doctor"]) == 2
    assert "sslkit doctor RUN_FOLDER" in capsys.readouterr().out
