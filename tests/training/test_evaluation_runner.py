"""Evaluations of a run: baselines, networks, interruptions, and rows that have no room."""

import errno
import logging
import os
from io import StringIO

import pytest
import torch
from rich.console import Console

from sslkit.contracts import Evaluator
from sslkit.data import Textures
from sslkit.errors import NotFinite, UnknownName
from sslkit.progress import showing
from sslkit.recipe.sections import Data, Evaluation
from sslkit.run_folder.results import read_results
from sslkit.training import evaluation_runner as module
from sslkit.training.evaluation_runner import EvaluationRunner
from sslkit.training.signals import Interruption
from sslkit.types import Preprocessing


class Width(Evaluator):
    """The length of the features."""

    command = "width"
    protocol = "width-v1"
    needs_labels = False

    def run(self, backbone, data):
        images, _ = next(iter(data.test.batches()))
        yield "width", backbone(images).cls.shape[1]


@pytest.fixture
def runner(tmp_path):
    def runner(evaluators=None, interruption=None, test=True, **section):
        images = Textures(6, size=8), Textures(4, size=8, split="test")
        data = Data(images[0], images[1] if test else None, mean=[0.5] * 3, std=[0.5] * 3)
        return EvaluationRunner(
            Evaluation(evaluators=[Width()] if evaluators is None else evaluators, **section),
            data,
            Preprocessing(3, [0.5] * 3, [0.5] * 3, None, 8, 8),
            torch.device("cpu"),
            tmp_path / "results.json",
            interruption or Interruption(lambda: None),
        )

    return runner


def networks(tiny):
    return {"teacher": tiny.Backbone().float(), "student": tiny.Backbone().float()}


def test_the_networks_that_the_recipe_names_are_measured_and_written(runner, tiny):
    run = runner(networks=["student", "teacher"])
    rows = run.evaluate(networks(tiny), step=7)
    assert [(row["network"], row["step"], row["metrics"]) for row in rows] == [
        ("student", 7, {"width": 5}),
        ("teacher", 7, {"width": 5}),
    ]
    assert read_results(run.path) == rows


def test_baselines_are_measured_before_the_first_step(runner, tiny):
    run = runner(baselines=["raw-pixels", "untrained"])
    run.measure_start(tiny.Backbone().float())
    assert [row["network"] for row in read_results(run.path)] == [
        "raw-pixels (plain)",
        "raw-pixels (centered)",
        "raw-pixels (gray-centered)",
        "untrained",
    ]
    with pytest.raises(UnknownName, match=r"evaluation\.baselines: unknown baseline 'raw'"):
        runner(baselines=["raw"])


def test_cheap_baselines_are_measured_without_being_named(runner, tiny):
    run = runner()
    run.measure_start(tiny.Backbone().float())
    assert [row["network"] for row in read_results(run.path)][2:] == ["raw-pixels (gray-centered)", "untrained"]


def test_baselines_that_take_long_beside_the_run_are_left_out_in_a_line(runner, tiny, monkeypatch):
    monkeypatch.setattr("sslkit.evaluation.baselines.ALWAYS_CHEAP_SECONDS", 0)
    run, console = runner(), Console(file=StringIO())
    with showing(console):
        run.measure_start(tiny.Backbone().float(), views=1)
    assert not run.path.exists()
    assert console.file.getvalue() == (
        "note: not measured: raw-pixels (about 1 s) and untrained (about 1 s). "
        "To compare with them: --evaluation.baselines '[raw-pixels, untrained]'\n"
    )


@pytest.mark.parametrize("options", [{"evaluators": []}, {"test": False}, {"baselines": []}])
def test_without_anything_to_measure_or_to_compare_nothing_is_said(runner, tiny, options):
    run, console = runner(**options), Console(file=StringIO())
    with showing(console):
        run.measure_start(tiny.Backbone().float(), views=1)
    assert console.file.getvalue() == ""
    assert not run.path.exists()


def test_weights_from_elsewhere_are_a_row_of_their_own(runner, tiny):
    run = runner(baselines=["untrained"])
    run.measure_start(tiny.Backbone().float(), untrained=tiny.Backbone().float())
    assert [row["network"] for row in read_results(run.path)] == ["untrained", "init_from"]


def test_an_interrupted_evaluation_has_no_rows(runner, tiny):
    interruption = Interruption(lambda: None)
    interruption.asked = True
    run = runner(interruption=interruption)
    assert run.evaluate(networks(tiny), 3) == []
    assert not run.path.exists()


def test_without_test_images_one_line_says_so(runner, tiny, caplog):
    run = runner(test=False)
    with caplog.at_level(logging.WARNING, "sslkit.training"):
        assert [run.evaluate(networks(tiny), step) for step in (1, 2)] == [[], []]
    assert caplog.messages == ["width skipped: data.test is null"]


def test_a_network_that_is_not_finite_is_left_out_with_its_reason(runner, tiny, caplog):
    class Refusing(Width):
        def run(self, backbone, data):
            raise NotFinite("birds: the features of 3 images are not finite")

    run = runner([Refusing()], networks=["teacher"])
    with caplog.at_level(logging.WARNING, "sslkit.training"):
        assert run.evaluate(networks(tiny), 3) == []
    assert caplog.messages == ["teacher is not evaluated at step 3: birds: the features of 3 images are not finite"]


def test_rows_without_room_wait(runner, tiny, monkeypatch, caplog):
    run = runner(networks=["teacher"])

    def full(path, rows):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(module, "append_results", full)
    run.evaluate(networks(tiny), 3)
    assert len(run.waiting) == 1
    with pytest.raises(OSError, match="No space"):
        run.sync()
    monkeypatch.undo()
    run.sync()
    assert run.waiting == []
    assert [row["step"] for row in read_results(run.path)] == [3]
