"""A warning where a run falls below the weights that it started from, and none elsewhere."""

import logging
from types import SimpleNamespace

import pytest

from sslkit.health.start_regression import StartRegression


@pytest.fixture
def said(caplog):
    caplog.set_level(logging.WARNING, "sslkit.training")
    return lambda: caplog.messages


def row(network, value, protocol="knn-v1", step=0):
    metrics = {"knn/top1@20": value, "knn/top5@20": 0.0}
    return {"network": network, "protocol": protocol, "step": step, "metrics": metrics}


def test_an_evaluation_below_the_start_is_told(said):
    run = SimpleNamespace(results=[row("untrained", 90.0), row("init_from", 60.0)])
    watch = StartRegression()
    watch.on_evaluate_end(run, [row("teacher", 59.0, step=7), row("student", 61.0, step=7)])
    watch.on_evaluate_end(run, [row("teacher", 1.0, "knn-v2", step=8)])
    assert said() == []
    watch.on_evaluate_end(run, [row("teacher", 58.9, step=9), row("student", 70.0, step=9)])
    watch.on_evaluate_end(run, [row("teacher", 58.9, step=10)])
    (message,) = said()
    assert message.startswith(
        "the teacher has a knn/top1@20 of 58.9 at step 9, the weights that init_from took had 60.0"
    )
    assert "--optimization.freeze.backbone '1 epochs'" in message
    watch.on_evaluate_end(run, [row("teacher", 50.0, step=11), row("student", 50.0, step=11)])
    assert [message[:11] for message in said()] == ["the teacher", "the teacher", "the student"]


def test_half_the_rank_of_the_first_step_is_told_once(said):
    run = SimpleNamespace(metrics=[{"step": 1.0, "effective_rank": 8.0}], is_main=True)
    watch = StartRegression()
    for step, rank in enumerate([8.0, 4.1, 4.0, 3.9, 2.0]):
        watch.on_step_end(run, {"step": step, "effective_rank": rank})
    (message,) = said()
    assert message.startswith("the effective rank of the features is 3.9 at step 3, of the weights that init_from took")


def test_a_resumed_run_remembers_and_only_the_main_process_speaks(said):
    run = SimpleNamespace(metrics=[{"step": 1.0, "effective_rank": 8.0}], is_main=False)
    StartRegression().on_step_end(run, {"step": 90.0, "effective_rank": 1.0})
    assert said() == []
    run.is_main = True
    StartRegression().on_step_end(run, {"step": 90.0, "effective_rank": 1.0})
    assert len(said()) == 1


def test_a_rank_that_is_no_number_is_no_fall(said):
    run = SimpleNamespace(metrics=[{"step": 1.0, "effective_rank": None}], is_main=True)
    StartRegression().on_step_end(run, {"step": 2.0, "effective_rank": float("nan")})
    assert said() == []
