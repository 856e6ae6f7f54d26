"""A run that falls ill is told once with its cause, or stopped, as its recipe says."""

import logging
from io import StringIO
from types import SimpleNamespace

import pytest
from rich.console import Console

from sslkit.clock import Clock
from sslkit.errors import RunError
from sslkit.health.collapse_monitor import MEMORY, CollapseMonitor
from sslkit.launch import train
from sslkit.recipe import load
from sslkit.recommendation import Recommendation

CAUSE = Recommendation(
    "method.loss: nothing holds it apart",
    "a paper",
    {"method.loss.temperature": 0.1},
    leads_to=("constant embeddings",),
    remedy={"method.predictor": {"MLPPredictor": {"hidden_dim": 8}}},
)
OTHER = Recommendation("optimization.lr: high", leads_to=("not learning",))


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, "sslkit.training")
    return lambda: caplog.messages


def run_at(tmp_path, rows=(), results=()):
    return SimpleNamespace(
        is_main=True, metrics=[*rows], results=[*results], clock=Clock(0, 1000, 10), run_dir=tmp_path
    )


def row(step, cosine):
    return {"step": step, "loss": 1.0, "image_cosine": cosine}


def test_an_ailment_is_told_once_with_cause_and_change(said, tmp_path):
    watch, run = CollapseMonitor("warn", [OTHER, CAUSE]), run_at(tmp_path)
    watch.on_run_start(run)
    for step in range(10, 201, 10):
        watch.on_step_end(run, row(step, 0.5 if step < 100 else 1.0))
    (message,) = said()
    assert message.splitlines() == [
        "step 150: constant embeddings (embeddings of different images have cosine 1.0000)",
        "  cause: method.loss: nothing holds it apart (a paper)",
        "  try:   --method.loss.temperature 0.1 --method.predictor '{MLPPredictor: {hidden_dim: 8}}'",
    ]
    for step in range(210, 301, 10):
        watch.on_step_end(run, row(step, 0.5))
    assert said()[1:] == ["step 210: constant embeddings is no longer seen"]


def test_an_ailment_without_a_known_cause_says_so(said, tmp_path):
    watch, run = CollapseMonitor("warn", [OTHER]), run_at(tmp_path, [row(step, 1.0) for step in range(10, 200, 10)])
    watch.on_run_start(run)
    watch.on_step_end(run, row(200, 1.0))
    assert said()[0].endswith("a lower optimization.lr or a longer warm-up is the first to try")


def test_a_resumed_run_remembers_and_keeps_no_more_rows_than_it_needs(said, tmp_path):
    watch, run = CollapseMonitor("warn", []), run_at(tmp_path, [row(step, 1.0) for step in range(1, 500)])
    watch.on_run_start(run)
    assert len(watch.rows) == MEMORY
    watch.on_step_end(run, row(500, 0.5))
    assert len(watch.rows) == MEMORY
    assert said()[0].startswith("step 500: constant embeddings")


def test_evaluations_are_judged_too(said, tmp_path):
    watch, run = CollapseMonitor("warn", []), run_at(tmp_path, [row(300, 0.5)])
    watch.on_run_start(run)
    networks = (("untrained", 40.0), ("teacher", 40.0))
    run.results = [{"network": n, "protocol": "p", "step": 0, "metrics": {"top1": value}} for n, value in networks]
    watch.on_evaluate_end(run, run.results[-1:])
    watch.on_step_end(run, row(310, 0.5))
    assert said()[0].startswith("step 310: not learning (top1 of the teacher is 40.0")


def test_a_run_that_should_stop_stops_and_one_that_should_not_care_goes_on(said, tmp_path):
    rows = [row(step, 1.0) for step in range(10, 200, 10)]
    watch, run = CollapseMonitor("stop", [CAUSE]), run_at(tmp_path, rows)
    watch.on_run_start(run)
    with pytest.raises(
        RunError, match=r"(?s)step 200: constant .*cause: .*because of runtime.on_collapse.*checkpoints"
    ):
        watch.on_step_end(run, row(200, 1.0))
    watch = CollapseMonitor("ignore", [CAUSE])
    watch.on_run_start(run)
    watch.on_step_end(run, row(200, 1.0))
    assert said() == []


def overrides(tmp_path, policy):
    return [
        "--data.train", "{Textures: {num_images: 64}}", "--data.test", "null", "--evaluation.evaluators", "[]",
        "--evaluation.baselines", "[]", "--optimization.steps", "130", "--optimization.batch_size", "8",
        "--optimization.lr", "0.01", "--method.predictor", "null", "--method.loss", "MSE", "--method.collapse", "null",
        "--method.head", "{MLPHead: {hidden_dim: 8, embed_dim: 6}}",
        "--method.backbone.model_args", "{layers: [1, 1, 1, 1], channels: [4, 4, 4, 8]}",
        "--optimization.freeze.prototypes", "null",
        "--runtime.on_collapse", policy, "--runtime.num_workers", "0", "--runtime.callbacks", "[]",
        "--precision", "fp32",
    ]  # fmt: skip


@pytest.mark.parametrize("policy", ["stop", "warn"])
def test_a_run_that_is_made_to_collapse_does_as_its_recipe_says(tmp_path, policy, said):
    """BYOL without predictor: every image gets the same embedding within a few steps."""
    recipe = load("quickstart", overrides(tmp_path, policy))
    console = Console(file=StringIO())
    if policy == "stop":
        with pytest.raises(RunError, match="constant embeddings") as stopped:
            train(recipe, tmp_path / "run", console=console)
        assert "--method.predictor MLPPredictor" in str(stopped.value)
        assert stopped.value.exit_code == 1
    else:
        assert train(recipe, tmp_path / "run", console=console).clock.step == 130
        assert "--method.predictor MLPPredictor" in said()[0]


def test_images_are_looked_at_once_and_named_as_the_cause(said, tmp_path):
    looked = []

    def of_images():
        looked.append(1)
        yield Recommendation("data.train: all the same", leads_to=("not learning", "constant embeddings"))

    watch, run = CollapseMonitor("warn", [OTHER], of_images), run_at(tmp_path)
    watch.on_run_start(run)
    for step in range(10, 301, 10):
        watch.on_step_end(run, row(step, 0.5 if step < 200 else 1.0))
    first, second = said()
    assert first.splitlines()[:2] == [
        "step 100: not learning (data.train: all the same)",
        "  cause: optimization.lr: high",
    ]
    assert "cause: data.train: all the same\n  no single change is known to fix it" in second
    assert looked == [1]


@pytest.mark.parametrize(
    ("score", "step", "policy", "begins"),
    [
        (
            40.0,
            1000,
            "warn",
            "step 1000: not learning (top1 of the teacher is 40.0, that of the untrained network 40.0",
        ),
        (50.0, 1000, "warn", "step 1000: no gain shown (top1 of the teacher is 50.0, that of raw-pixels (plain) 60.0)"),
        (70.0, 1000, "warn", None),
        (40.0, 400, "warn", None),
        (40.0, 1000, "ignore", None),
    ],
)
def test_the_last_evaluation_is_judged_at_the_end(said, tmp_path, score, step, policy, begins):
    watch, run = CollapseMonitor(policy, []), run_at(tmp_path, [row(step, 0.5)])
    watch.on_run_start(run)
    run.clock = Clock(step, 1000, 10)
    networks = (("untrained", 40.0, 0), ("raw-pixels (plain)", 60.0, 0), ("teacher", score, step))
    run.results = [{"network": n, "protocol": "p", "step": at, "metrics": {"top1": value}} for n, value, at in networks]
    watch.on_run_end(run)
    assert [message[: len(begins or "")] for message in said()] == ([begins] if begins else [])
