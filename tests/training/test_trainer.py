"""Whole runs of a few steps: repeatable bit for bit, stopped and resumed as if nothing had happened."""

import json
import logging
import os
import re
import signal
import sys
import threading
import time
import weakref
from io import StringIO
from pathlib import Path

import pytest
import torch
import yaml
from rich.console import Console
from safetensors.torch import load_file

from sslkit import plugins
from sslkit.backbones.loading import load_model
from sslkit.clock import Clock
from sslkit.contracts import TrainingRun
from sslkit.data import workers
from sslkit.errors import DataError, RecipeError, RunError, SSLKitError, UnknownName
from sslkit.evaluation.evaluate import evaluate
from sslkit.evaluation.images import evaluation_data
from sslkit.launch import train
from sslkit.method.step import train_step
from sslkit.recipe import load
from sslkit.run_folder.folder import Record
from sslkit.run_folder.metrics_log import read_metrics
from sslkit.run_folder.results import read_results
from sslkit.schedules import Cosine
from sslkit.training import setup, trainer
from sslkit.training.accelerated import start_accelerator
from sslkit.training.evaluation_runner import EvaluationRunner
from sslkit.training.loader import StepBatches
from sslkit.training.trainer import Trainer
from sslkit.views import MultiCrop

DOCS = Path(__file__).parents[2] / "docs"

RECIPE = """\
method:
  backbone:
    TimmBackbone:
      name: resnet18
      small_image_stem: true
      drop_path_rate: 0.3
      model_args: {layers: [1, 1, 1, 1], channels: [8, 8, 8, 16], stem_type: deep, stem_width: 4}
  head: {DINOHead: {num_prototypes: 32, hidden_dim: 16, embed_dim: 8, num_layers: 2}}
  teacher: {EMA: {momentum: {Cosine: {start: 0.9, end: 1.0}}}}
  collapse: {Centering: {momentum: 0.9, temperature: {Warmup: {start: 0.04, end: 0.07, over: 2 epochs}}}}
  loss: CrossEntropy
views: {MultiCrop: {crop_on: device, canvas_size: 16, global_size: 16, num_local_views: 1, local_size: 8}}
data:
  train: {Textures: {num_images: 34, size: 16}}
  test: {Textures: {num_images: 16, size: 16, split: test}}
optimization:
  optimizer: AdamW
  batch_size: 8
  epochs: 2
  lr: {Cosine: {start: 0.02, end: 0.001, warmup: 3 steps}}
  weight_decay: {Cosine: {start: 0.04, end: 0.4}}
  clip_grad_norm: 0.5
  freeze: {prototypes: 2 steps}
precision: fp32
runtime: {device: cpu, threads: 1, log_every: 1, checkpoint_every: 3 steps}
evaluation: {evaluators: [{KNN: {k: [5]}}], every: 3 steps, baselines: [raw-pixels, untrained]}
"""
STEPS = 8
CONV = "model.teacher.backbone.model.layer1.0.conv1.weight"
IN_BATCH_NEGATIVES = ["--method.head", "MLPHead", "--method.collapse", "null"]
IN_BATCH_NEGATIVES += ["--method.loss", "{InfoNCE: {negatives: batch}}", "--optimization.freeze.prototypes", "null"]
TIMING = {"images_per_second", "data_wait_fraction"}

STOP = '''\
import json
import multiprocessing
import os
import signal
import threading

from sslkit.contracts import Callback

SEEN = []


class Stop(Callback):
    """Ends a run at one of its hooks.

    Args:
        hook: where.
        step: when.
        how: interrupt, kill workers, sigint, sigterm, crash, or later for a sigterm soon after it.
    """

    def __init__(self, hook: str = "on_step_end", step: int = 0, how: str = "interrupt") -> None:
        self.hook, self.step, self.how = hook, step, how

    def on_run_start(self, run): self.stop("on_run_start", run, 0)
    def on_step_end(self, run, metrics): self.stop("on_step_end", run, metrics["step"])
    def on_evaluate_end(self, run, results): self.stop("on_evaluate_end", run, run.clock.step)
    def on_checkpoint(self, run, folder): self.stop("on_checkpoint", run, run.clock.step)
    def on_run_end(self, run): self.stop("on_run_end", run, run.clock.step)

    def stop(self, hook, run, step):
        SEEN.append((hook, step))
        if (hook, step) != (self.hook, self.step):
            return
        if self.how == "crash":
            raise ZeroDivisionError("crash")
        if self.how == "interrupt":
            run.interrupted = True
        elif self.how == "kill workers":
            for worker in multiprocessing.active_children():
                worker.kill()
        elif self.how == "later":
            threading.Timer(0.3, os.kill, [os.getpid(), signal.SIGTERM]).start()
        else:
            os.kill(os.getpid(), getattr(signal, self.how.upper()))


class Reader(Callback):
    """Writes down what it reads of a run."""

    def on_step_end(self, run, metrics):
        read = {
            "name": run.name, "is_main": run.is_main, "step": run.clock.step, "device": str(run.device),
            "rows": [row["step"] for row in run.metrics], "results": sorted({row["step"] for row in run.results}),
            "test": len(run.visualization.image_features("test", 3).images), "predictor": run.student.predictor,
            "student": type(run.student.head).__name__, "teacher": type(run.teacher.head).__name__,
            "interrupted": run.interrupted,
        }
        with (run.run_dir / "read.jsonl").open("a") as file:
            file.write(json.dumps(read) + "\\n")
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "stop.py").write_text(STOP)
    return folder


@pytest.fixture(autouse=True)
def _stop(place):
    with plugins.using([place / "stop.py"]):
        yield


def go(place, folder, *overrides, resume=False):
    console = Console(file=StringIO(), width=120)
    run = train(load(place / "tiny.yaml", overrides), folder, resume, console)
    run.said = console.file.getvalue()
    return run


def stop(hook="on_step_end", step=0, how="interrupt"):
    return ["--runtime.callbacks", f"[{{Stop: {{hook: {hook}, step: {step}, how: {how}}}}}]"]


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory):
    """Return the folder of a run of the tiny recipe that nothing disturbed."""
    with plugins.using([place / "stop.py"]):
        return go(place, tmp_path_factory.mktemp("whole") / "run").folder.path


def rows(folder):
    return [
        {name: v for name, v in row.items() if name not in TIMING} for row in read_metrics(folder / "metrics.jsonl")
    ]


def tensors(folder):
    """Return everything that a run ends with: networks, center, moments, and both saved backbones."""
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    found = load_file(newest / "state.safetensors")
    for name in ("teacher", "student"):
        saved = load_file(folder / name / "model.safetensors")
        found |= {f"{name}/{key}": value for key, value in saved.items()}
    return found


def assert_same_run(folder, other, results=True):
    mine, theirs = tensors(folder), tensors(other)
    assert mine.keys() == theirs.keys()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []
    assert rows(folder) == rows(other)
    if results:
        assert read_results(folder / "results.json") == read_results(other / "results.json")


# Repeatable


def test_two_identical_runs_are_identical(place, whole, tmp_path):
    torch.manual_seed(99)
    again = go(place, tmp_path / "run").folder.path
    assert_same_run(again, whole)
    found = tensors(whole)
    assert {"model.collapse.center", CONV, "optimizer.0.exp_avg_sq"} <= {*found}
    assert found["model.collapse.center"].abs().sum() > 0
    assert len(rows(whole)) == STEPS


def test_the_seed_changes_everything(place, whole, tmp_path):
    other = go(place, tmp_path / "run", "--seed", "1").folder.path
    assert rows(other)[0]["loss"] != rows(whole)[0]["loss"]
    mine, theirs = tensors(other), tensors(whole)
    assert not torch.equal(mine[CONV], theirs[CONV])


def test_workers_change_nothing(place, whole, tmp_path):
    helped = go(place, tmp_path / "run", "--runtime.num_workers", "2").folder.path
    assert_same_run(helped, whole)


def test_baselines_change_nothing_that_is_learned(place, whole, tmp_path):
    """Those that are chosen by their cost, which is counted on the network, are the same as those that are named."""
    assert_same_run(go(place, tmp_path / "chosen", "--evaluation.baselines", "null").folder.path, whole)
    assert_same_run(go(place, tmp_path / "none", "--evaluation.baselines", "[]").folder.path, whole, results=False)


def test_views_cropped_by_workers_are_as_repeatable(place, tmp_path):
    views = ["--views.crop_on", "workers", "--views.canvas_size", "null"]
    short = [*views, "--optimization.steps", "3", "--evaluation.baselines", "[]", "--evaluation.every", "null"]
    runs = [go(place, tmp_path / n, *short, "--runtime.num_workers", n).folder.path for n in ("0", "2")]
    assert_same_run(*runs)


def test_bf16_is_as_repeatable_and_resumable(place, tmp_path):
    words = ["--precision", "bf16"]
    first, again = (go(place, tmp_path / name, *words).folder.path for name in ("a", "b"))
    assert_same_run(first, again)
    go(place, tmp_path / "c", *words, *stop(step=4))
    assert_same_run(go(place, tmp_path / "c", *words, resume=True).folder.path, first)


def test_watching_changes_nothing_that_is_learned(place, whole, tmp_path):
    quiet = ["--evaluation.evaluators", "[]", "--runtime.log_every", "100", "--runtime.checkpoint_every", "1 epochs"]
    other = go(place, tmp_path / "run", *quiet).folder.path
    mine, theirs = tensors(other), tensors(whole)
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    assert [row["step"] for row in rows(other)] == [1, STEPS]
    assert read_results(other / "results.json") == []


def test_fp16_goes_on_with_its_scale_and_when_to_raise_it(place, tmp_path, monkeypatch):
    """On a CPU, where accelerate has no fp16: with the scaler that it has on a GPU."""

    def start(device, precision):
        accelerator = start_accelerator(device, "fp32")
        accelerator.state._mixed_precision, accelerator.native_amp = "fp16", True
        accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**11, growth_interval=2)
        return accelerator

    monkeypatch.setattr(setup, "start_accelerator", start)
    words = [
        "--evaluation.evaluators",
        "[]",
        "--runtime.keep_checkpoints",
        "9",
        "--runtime.checkpoint_every",
        "1 steps",
    ]
    whole = go(place, tmp_path / "whole", *words).folder.path
    scalers = [json.loads(path.read_text())["executor"] for path in sorted(whole.glob("checkpoints/*/state.json"))]
    # Halved until nothing overflows, which is no news, and doubled after two steps of which none did.
    scales, trackers = zip(*((scaler["scale"], scaler["_growth_tracker"]) for scaler in scalers), strict=True)
    assert (min(scales) < scales[0], min(scales) < scales[-1], trackers[4]) == (True, True, 1)
    assert rows(whole)[-1]["skipped_steps"] == 0
    go(place, tmp_path / "run", *words, *stop(step=5))
    path = go(place, tmp_path / "run", *words, resume=True).folder.path
    assert scalers == [
        json.loads(found.read_text())["executor"] for found in sorted(path.glob("checkpoints/*/state.json"))
    ]
    assert_same_run(path, whole)


def test_compile_compiles_both_backbones(place, tmp_path, monkeypatch):
    compiled = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, **options: compiled.append(module))
    run = go(place, tmp_path / "run", "--runtime.compile", "true", "--optimization.steps", "1")
    assert compiled == [run.model.teacher.backbone, run.model.student.backbone]


def test_the_written_recipe_repeats_the_run(whole, tmp_path):
    recipe = load(whole / "recipe.yaml")
    assert recipe.to_yaml() == (whole / "recipe.yaml").read_text()
    again = train(recipe, tmp_path / "run", console=Console(file=StringIO())).folder.path
    assert_same_run(again, whole)
    said = [json.loads((folder / "environment.json").read_text())["identity"] for folder in (whole, again)]
    assert said[0] == said[1]


def test_what_a_step_leaves_is_gone_when_the_next_one_starts(place, tmp_path, monkeypatch):
    left, alive = [], []

    def take(*words, **others):
        alive.append(sum(output() is not None for output in left))
        output = train_step(*words, **others)
        left.append(weakref.ref(output))
        return output

    monkeypatch.setattr(trainer, "train_step", take)
    go(place, tmp_path / "run", "--evaluation.evaluators", "[]", "--runtime.log_every", "3")
    assert alive == [0] * STEPS


# Stopped and resumed


@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_run_whose_workers_are_killed_is_saved_and_goes_on_as_if_they_had_not_been(
    place, whole, tmp_path, monkeypatch
):
    monkeypatch.setattr(workers, "CHECK_EVERY", 0.5)
    words = ["--runtime.num_workers", "2", "--runtime.checkpoint_every", "100 steps", "--evaluation.every", "null"]
    with pytest.raises(RunError, match=r"images was killed.* Step (\d) is saved: --resume goes on") as error:
        go(place, tmp_path / "run", *words, *stop(step=1, how="kill workers"))
    # Images that had been read before are used.
    saved = max((tmp_path / "run/checkpoints").glob("step-*")).name
    assert int(saved.split("-")[1]) == len(rows(tmp_path / "run"))
    assert error.value.exit_code == 1
    assert_same_run(go(place, tmp_path / "run", *words, resume=True).folder.path, whole, results=False)


def test_a_run_that_cannot_read_on_saves_the_steps_taken(place, whole, tmp_path, monkeypatch):
    read = StepBatches.read

    def fail_at_5(self, step, *others):
        if step == 5:
            raise DataError("the disk is gone")
        return read(self, step, *others)

    words = ["--runtime.checkpoint_every", "100 steps"]
    monkeypatch.setattr(StepBatches, "read", fail_at_5)
    with pytest.raises(DataError, match=r"disk is gone\. Step 5 is saved: --resume"):
        go(place, tmp_path / "run", *words)
    monkeypatch.undo()
    assert_same_run(go(place, tmp_path / "run", *words, resume=True).folder.path, whole)


@pytest.mark.parametrize(
    ("step", "overrides"),
    [
        (4, []),
        (5, []),
        (6, []),
        (7, ["--method.teacher", "PreviousEpoch"]),
        (3, ["--method.teacher", "PreviousStep"]),
        (5, ["--method.teacher", "Copy"]),
        (5, ["--method.collapse", "SinkhornKnopp", "--runtime.accumulation", "2"]),
        (2, ["--method.init", "independent", "--method.predictor", "MLPPredictor"]),
        (4, ["--method.batch_norm", "2", "--method.separate_views", "true", "--method.init", "independent"]),
    ],
)
def test_interrupted_and_resumed_is_the_uninterrupted_run(place, whole, tmp_path, step, overrides):
    if overrides:
        whole = go(place, tmp_path / "whole", *overrides).folder.path
    run = go(place, tmp_path / "run", *overrides, *stop(step=step))
    assert run.interrupted
    assert run.clock.step == step
    assert [row["step"] for row in run.metrics] == list(range(1, step + 1))
    again = go(place, tmp_path / "run", *overrides, resume=True)
    assert not again.interrupted
    assert_same_run(again.folder.path, whole)


@pytest.mark.parametrize(
    ("hook", "step"),
    [
        ("on_step_end", 1),
        ("on_checkpoint", 6),
        ("on_evaluate_end", 6),
        ("on_evaluate_end", 8),
        ("on_run_end", 8),
    ],
)
def test_a_crash_loses_and_repeats_nothing(place, whole, tmp_path, hook, step):
    handlers = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with pytest.raises(ZeroDivisionError):
        go(place, tmp_path / "run", *stop(hook, step, "crash"))
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == handlers
    assert_same_run(go(place, tmp_path / "run", resume=True).folder.path, whole)


def test_evaluations_after_the_checkpoint_are_made_again_once(place, tmp_path):
    words = ["--runtime.checkpoint_every", "5 steps"]
    whole = go(place, tmp_path / "whole", *words).folder.path
    with pytest.raises(ZeroDivisionError):
        go(place, tmp_path / "run", *words, *stop("on_step_end", 4, "crash"))
    assert 3 in {row["step"] for row in read_results(tmp_path / "run/results.json")}
    assert_same_run(go(place, tmp_path / "run", *words, resume=True).folder.path, whole)


def test_resume_starts_where_there_is_nothing(place, whole, tmp_path):
    assert_same_run(go(place, tmp_path / "run", resume=True).folder.path, whole)


def test_resuming_a_finished_run_changes_nothing(place, whole, tmp_path):
    path = go(place, tmp_path / "run").folder.path
    run = go(place, path, *stop("on_step_end", -1), resume=True)
    assert run.clock.step == STEPS
    assert_same_run(path, whole)


@pytest.mark.parametrize("how", ["sigint", "sigterm"])
def test_a_signal_finishes_the_step_and_leaves_a_usable_folder(place, whole, tmp_path, how):
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    run = go(place, tmp_path / "run", *stop(step=5, how=how))
    assert run.interrupted
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    path = run.folder.path
    assert [folder.name for folder in sorted((path / "checkpoints").iterdir())] == ["step-000000003", "step-000000005"]
    for name, branch in run.branches().items():
        loaded = load_model(str(path), name)
        assert loaded.network == name
        branch.eval()
        images = torch.randn(2, 3, 16, 16)
        torch.testing.assert_close(loaded.backbone(images).cls, branch.backbone(images).cls)
    assert_same_run(go(place, path, resume=True).folder.path, whole)


LONG = 60


def test_an_evaluation_is_left_for_a_signal_and_made_when_the_run_goes_on(place, whole, tmp_path, monkeypatch):
    measure = EvaluationRunner.measure

    def slow(evaluation_runner, backbone, network, step):
        if (network, step) == ("student", 6):
            threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGTERM]).start()
            time.sleep(LONG)
        return measure(evaluation_runner, backbone, network, step)

    monkeypatch.setattr(EvaluationRunner, "measure", slow)
    start = time.monotonic()
    run = go(place, tmp_path / "run")
    assert time.monotonic() - start < LONG / 2
    assert (run.interrupted, run.clock.step) == (True, 6)
    assert "stopping after this step" in run.said
    assert [row["network"] for row in run.results if row["step"] == 6] == ["teacher"]
    monkeypatch.undo()
    assert_same_run(go(place, tmp_path / "run", resume=True).folder.path, whole)


@pytest.mark.parametrize("workers", ["0", "2"])
def test_a_batch_that_does_not_come_is_not_waited_for_after_a_signal(place, whole, tmp_path, workers, monkeypatch):
    read = StepBatches.read

    def slow(batches, step, stopped=lambda: False):
        if step == 4:
            time.sleep(LONG)
        return read(batches, step, stopped)

    monkeypatch.setattr(StepBatches, "read", slow)
    words = ["--runtime.num_workers", workers]
    start = time.monotonic()
    run = go(place, tmp_path / "run", *words, *stop(step=4, how="later"))
    assert time.monotonic() - start < LONG / 2
    assert (run.interrupted, run.clock.step) == (True, 4)
    monkeypatch.undo()
    assert_same_run(go(place, tmp_path / "run", resume=True).folder.path, whole)


@pytest.fixture
def _heeds_ctrl_c():
    """Where tests run in the background, Ctrl-C is ignored at first."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_heeds_ctrl_c")
def test_a_second_ctrl_c_stops_at_once(place, tmp_path, monkeypatch):
    monkeypatch.setattr("sslkit.training.signals.ECHO", 0)
    two = "[{Stop: {step: 2, how: sigint}}, {Stop: {step: 2, how: sigint}}]"
    with pytest.raises(KeyboardInterrupt):
        go(place, tmp_path / "run", "--runtime.callbacks", two)
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_stopped_before_the_first_step(place, whole, tmp_path):
    pictured = "[{Stop: {hook: on_run_start}}, SummaryPicture]"
    run = go(place, tmp_path / "run", "--runtime.callbacks", pictured)
    assert run.clock.step == 0
    assert run.metrics == []
    assert (run.folder.path / "summary.png").exists()
    assert load_model(str(run.folder.path)).backbone is not None
    assert_same_run(go(place, tmp_path / "run", resume=True).folder.path, whole)


def test_an_interrupted_run_does_not_stay_to_evaluate(place, tmp_path):
    run = go(place, tmp_path / "run", *stop(step=3))
    assert {row["step"] for row in run.results} == {0}


def test_a_run_in_another_thread_is_stopped_by_its_flag(place, tmp_path):
    run = Trainer(load(place / "tiny.yaml", stop(step=2)).build(), Record("mine", "", "id"), tmp_path / "run")
    thread = threading.Thread(target=run.execute)
    thread.start()
    thread.join()
    assert run.clock.step == 2


# What is refused


def test_a_folder_that_holds_a_run_is_refused_and_untouched(place, whole):
    before = {path: path.stat().st_mtime_ns for path in whole.rglob("*")}
    with pytest.raises(SSLKitError, match="already holds a run; add --resume"):
        go(place, whole)
    with pytest.raises(SSLKitError, match="holds the run of another recipe"):
        go(place, whole, "--optimization.batch_size", "4", resume=True)
    assert {path: path.stat().st_mtime_ns for path in whole.rglob("*")} == before


def test_runtime_and_evaluation_may_change_on_the_way(place, whole, tmp_path):
    go(place, tmp_path / "run", *stop(step=4))
    other = ["--runtime.num_workers", "1", "--runtime.log_every", "2", "--evaluation.baselines", "[]"]
    path = go(place, tmp_path / "run", *other, resume=True).folder.path
    assert all(torch.equal(value, tensors(whole)[name]) for name, value in tensors(path).items())


@pytest.mark.parametrize(
    ("overrides", "error", "said"),
    [
        (["--optimization.batch_size", "35"], RecipeError, "optimization.batch_size: 35 is more than the 34 images of"),
        (["--evaluation.baselines", "[raw-pixel]"], UnknownName, "Did you mean 'raw-pixels'?"),
        (["--optimization.freeze.predictor", "1 epochs"], RecipeError, "the student has no predictor to keep still"),
        (["--method.student_views", "[0, 7]"], RecipeError, "no view 7"),
        (["--method.batch_norm", "3"], RecipeError, "the 8 images of a process cannot be cut .* groups of 3. Add one"),
        (["--method.batch_norm", "8"], RecipeError, "cannot be cut into two or more groups of 8"),
        (
            ["--method.batch_norm", "4", "--runtime.accumulation", "4"],
            RecipeError,
            "8 images of a process in 4 micro-batches cannot be cut into two or more groups of 4",
        ),
        (
            [*IN_BATCH_NEGATIVES, "--runtime.accumulation", "2"],
            RecipeError,
            "runtime.accumulation: InfoNCE compares the images of a batch .*\n  --runtime.accumulation 1",
        ),
        (["--method.student_views", "[0]", "--method.teacher_views", "[0]"], RecipeError, "no two different views"),
        (["--runtime.device", "tpu"], RecipeError, "runtime.device: 'tpu' is not available here"),
        (["--precision", "fp16"], RecipeError, "precision: 'fp16' needs a GPU"),
        (["--runtime.accumulation", "0"], RecipeError, "runtime.accumulation is at least 1, not 0"),
        (["--runtime.keep_checkpoints", "0"], RecipeError, "runtime.keep_checkpoints is at least 1, not 0"),
        (["--runtime.num_workers", "-1"], RecipeError, "runtime.num_workers is at least 0, not -1"),
        (["--runtime.unreadable_limit", "2"], RecipeError, "runtime.unreadable_limit is a share, at most 1, not 2.0"),
    ],
)
def test_what_cannot_run_is_refused_before_there_is_a_folder(place, tmp_path, overrides, error, said):
    with pytest.raises(error, match=said):
        go(place, tmp_path / "run", *overrides)
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_refused(place, tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SSLKitError, match="cannot be written"):
        go(place, tmp_path / "file" / "run")


def test_too_many_unreadable_images_end_the_run_and_the_handlers_are_back(place, tmp_path, monkeypatch):
    from sslkit.data import Textures
    from sslkit.errors import UnreadableImage

    read = Textures.read

    def damaged(self, index):
        if self.name.endswith("train") and index % 4 == 0:
            raise UnreadableImage(f"{index}.png", "is empty")
        return read(self, index)

    monkeypatch.setattr(Textures, "read", damaged)
    before = signal.getsignal(signal.SIGINT)
    with pytest.raises(DataError, match="cannot be read, more than"):
        go(place, tmp_path / "run", "--evaluation.evaluators", "[]")
    assert signal.getsignal(signal.SIGINT) is before
    run = go(place, tmp_path / "bears", "--evaluation.evaluators", "[]", "--runtime.unreadable_limit", "0.5")
    assert run.clock.step == STEPS


# What a run leaves


def test_a_dino_run_logs_what_is_promised_and_the_rates_are_the_schedules(whole):
    found = read_metrics(whole / "metrics.jsonl")
    for row in found:
        # Singular values are computed every runtime.rank_every steps, at the start and at the end.
        assert set(row) - ({"effective_rank"} if row["step"] in (1, STEPS) else set()) == {
            "step", "epoch", "loss", "lr", "weight_decay", "teacher_momentum", "teacher_temperature",
            "target_entropy", "student_entropy", "marginal_entropy", "target_kl", "prototype_use", "center_norm",
            "embedding_std", "teacher_student_cosine", "images_per_second", "data_wait_fraction",
            "skipped_steps", "image_cosine", "embedding_directions", "loss_below_chance",
        }  # fmt: skip
    assert {"effective_rank"} <= {*found[0]} & {*found[-1]}
    lr = Cosine(0.02, 0.001, warmup="3 steps")
    for step, row in enumerate(found):
        clock = Clock(step, STEPS, 4)
        assert (row["step"], row["epoch"]) == (step + 1, (step + 1) / 4)
        assert row["lr"] == lr(clock)
        assert row["weight_decay"] == Cosine(0.04, 0.4)(clock)
        assert row["teacher_momentum"] == Cosine(0.9, 1.0)(clock)
        assert row["teacher_temperature"] == (0.04 if step < 4 else 0.07)
    assert found[0]["lr"] == 0


def test_rates_are_set_before_the_step_and_frozen_parts_keep_still(place, tmp_path):
    prototypes = load(place / "tiny.yaml").build().method.head.prototypes.state_dict()
    for done, moved in ((2, False), (3, True)):
        run = go(place, tmp_path / str(done), *stop(step=done))
        decayed, others = run.optimizer.param_groups
        assert decayed["lr"] == others["lr"] == run.metrics[-1]["lr"]
        assert (decayed["weight_decay"], others["weight_decay"]) == (run.metrics[-1]["weight_decay"], 0)
        now = run.model.student.head.prototypes.state_dict()
        assert moved == any(not torch.equal(now[name], value) for name, value in prototypes.items())


def test_what_a_base_freezes_can_be_undone(place, tmp_path):
    (place / "undone.yaml").write_text("base: tiny.yaml\noptimization: {freeze: {prototypes: null, predictor: null}}\n")
    prototypes = load(place / "tiny.yaml").build().method.head.prototypes.state_dict()
    recipe = load(place / "undone.yaml", stop(step=2))
    run = train(recipe, tmp_path / "run", console=Console(file=StringIO()))
    assert run.built.optimization.freezes == {}
    now = run.model.student.head.prototypes.state_dict()
    assert any(not torch.equal(now[name], value) for name, value in prototypes.items())


def test_each_batch_norm_is_the_one_that_the_recipe_asks_for(place, whole, tmp_path):
    """On a CPU all but the split ones are torch's own; parameters, buffers and their names are those of any other."""
    unwatched = ["--evaluation.evaluators", "[]", "--evaluation.baselines", "[]"]
    local = go(place, tmp_path / "local", "--method.batch_norm", "local", *unwatched)
    assert all(torch.equal(value, tensors(whole)[name]) for name, value in tensors(local.folder.path).items())
    split = go(place, tmp_path / "split", "--method.batch_norm", "2", *unwatched)
    for branch in split.branches().values():
        norms = [module for module in branch.modules() if isinstance(module, torch.nn.modules.batchnorm._BatchNorm)]
        assert {type(norm).__name__ for norm in norms} == {"SplitBatchNorm"}
    found = tensors(split.folder.path)
    assert {name: value.shape for name, value in found.items()} == {n: v.shape for n, v in tensors(whole).items()}
    assert not torch.equal(found[CONV], tensors(whole)[CONV])
    measured = evaluation_data(
        split.built.data.train, split.built.data.test, split.preprocessing, 8, torch.device("cpu"), 0, 16
    )
    saved = load_model(str(split.folder.path)).backbone
    images = next(iter(measured.test.batches()))[0]
    torch.testing.assert_close(saved(images).cls, split.model.teacher.backbone.eval()(images).cls)


@pytest.mark.parametrize("init", ["copy", "independent"])
def test_separate_views_reach_both_networks(place, tmp_path, init):
    words = ["--method.separate_views", "true", "--method.init", init, "--evaluation.evaluators", "[]"]
    run = go(place, tmp_path / "run", *words)
    assert [branch.separate_views for branch in run.branches().values()] == [True, True]
    norm = run.model.teacher.backbone.model.bn1
    assert norm.num_batches_tracked == 2 * STEPS
    assert run.model.student.backbone.model.bn1.num_batches_tracked == 3 * STEPS


def test_results_say_what_was_measured_where(whole):
    results = read_results(whole / "results.json")
    names = ("step", "network", "evaluator", "protocol", "dataset", "test_images", "metrics")
    assert {tuple(row) for row in results} == {names}
    baselines = [row["network"] for row in results if row["step"] == 0]
    assert baselines[-1] == "untrained"
    assert len(baselines) == 4
    assert all(name.startswith("raw-pixels (") for name in baselines[:3])
    later = [(row["step"], row["network"]) for row in results if row["step"]]
    assert later == [(step, network) for step in (3, 6, 8) for network in ("teacher", "student")]
    assert {row["dataset"] for row in results} == {"textures test"}
    assert all(set(row["metrics"]) == {"knn/top1@5", "knn/top5@5"} for row in results)


def test_the_environment_is_written(whole):
    said = json.loads((whole / "environment.json").read_text())
    assert said["recipe"] == "tiny"
    assert len(said["identity"]) == 16
    assert (said["device"], said["precision"], said["threads"], said["world_size"]) == ("cpu", "fp32", 1, 1)
    assert any(str(plugin["origin"]).endswith("stop.py") for plugin in said["plugins"])
    assert yaml.safe_load((whole / "recipe.yaml").read_text())["name"] == "tiny"


def test_hooks_fire_in_order(place, tmp_path):
    import sys

    words = ["--optimization.steps", "2", "--runtime.checkpoint_every", "1 steps", "--evaluation.every", "1 steps"]
    run = go(place, tmp_path / "run", *words, *stop(step=-1))
    seen = sys.modules[type(run.built.runtime.callbacks[0]).__module__].SEEN
    assert seen[-8:] == [
        ("on_run_start", 0),
        ("on_step_end", 1),
        ("on_checkpoint", 1),
        ("on_evaluate_end", 1),
        ("on_step_end", 2),
        ("on_checkpoint", 2),
        ("on_evaluate_end", 2),
        ("on_run_end", 2),
    ]
    assert "teacher · knn/top1@5" in run.said


@pytest.mark.parametrize("keep", [1, 3])
def test_as_many_checkpoints_stay_as_the_recipe_says(place, tmp_path, keep):
    words = ["--runtime.keep_checkpoints", str(keep), "--runtime.checkpoint_every", "2 steps"]
    run = go(place, tmp_path / "run", *words, "--evaluation.evaluators", "[]")
    kept = [int(path.name[5:]) for path in sorted((run.folder.path / "checkpoints").iterdir())]
    assert kept == [2, 4, 6, 8][-keep:]


def test_a_run_shorter_than_its_warm_up(place, tmp_path):
    words = ["--optimization.steps", "2", "--optimization.lr.warmup", "1 epochs", "--evaluation.evaluators", "[]"]
    run = go(place, tmp_path / "run", *words)
    assert [row["lr"] for row in run.metrics] == [0, pytest.approx(0.02 / 3)]


def test_unlabelled_images_cost_one_line(place, tmp_path, monkeypatch, caplog):
    from sslkit.data import Textures

    monkeypatch.setattr(Textures, "labels", property(lambda self: None, lambda self, value: None), raising=False)
    monkeypatch.setattr(Textures, "_draw", lambda self, draws, kinds: (
        torch.randint(256, (len(draws), 3, 16, 16), dtype=torch.uint8), torch.ones(len(draws), 16, 16)))  # fmt: skip
    monkeypatch.setattr(Textures, "read", lambda self, index: plain(self, index))
    with caplog.at_level(logging.WARNING, "sslkit"):
        run = go(place, tmp_path / "run", *stop(step=-1))
    assert [record.message for record in caplog.records] == [
        "knn skipped: no labels in textures train and textures test"
    ]
    assert run.results == []


def plain(source, index):
    from sslkit.types import Sample

    generator = torch.Generator().manual_seed(index)
    image = torch.randint(256, (3, 16, 16), dtype=torch.uint8, generator=generator)
    return Sample(image, int(source.keys[index]))


def test_without_test_images_nothing_is_evaluated_and_one_line_says_so(place, tmp_path, caplog):
    callbacks = ["--runtime.callbacks", "[SummaryPicture]"]
    with caplog.at_level(logging.WARNING, "sslkit"):
        run = go(place, tmp_path / "run", "--data.test", "null", "--optimization.steps", "4", *callbacks)
    assert [record.message for record in caplog.records] == ["knn skipped: data.test is null"]
    assert run.results == []
    assert (run.folder.path / "summary.png").exists()


def test_the_default_folder_is_named_after_the_recipe(place, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = go(place, None, "--optimization.steps", "1", "--evaluation.evaluators", "[]")
    assert run.folder.path.parent == Path("runs/tiny")
    assert (tmp_path / run.folder.path / "recipe.yaml").exists()


def test_a_run_without_a_recipe(place, tmp_path):
    """Parts put together in Python train too."""
    parts = load(place / "tiny.yaml", ["--optimization.steps", "2"]).build()
    run = Trainer(parts, Record("mine", "", "id"), tmp_path / "run", console=Console(file=StringIO()))
    run.execute()
    assert [row["step"] for row in run.metrics] == [1, 2]


def test_the_saved_teacher_measures_what_the_run_measured(whole):
    parts, loaded = load(whole / "recipe.yaml").build(), load_model(str(whole))
    images = evaluation_data(parts.data.train, parts.data.test, loaded.preprocessing, batch_size=5)
    [again] = evaluate(loaded.backbone, parts.evaluation.evaluators, images, network="teacher", step=STEPS)
    [row] = [row for row in read_results(whole / "results.json") if (row["step"], row["network"]) == (8, "teacher")]
    assert again == {**row, "metrics": pytest.approx(row["metrics"])}


def test_a_callback_reads_all_that_a_training_run_has(place, tmp_path):
    run = go(place, tmp_path / "run", "--runtime.callbacks", "[Reader]", "--optimization.steps", "2")
    (read,) = (run.run_dir / "read.jsonl").read_text().splitlines()[1:]
    read = json.loads(read)
    assert read == {
        "name": "tiny", "is_main": True, "step": 1, "device": "cpu", "rows": [1, 2], "results": [0], "test": 3,
        "student": "DINOHead", "teacher": "DINOHead", "predictor": None, "interrupted": False,
    }  # fmt: skip
    assert {name for name, value in vars(TrainingRun).items() if isinstance(value, property)} <= {*dir(run)}


def test_the_callback_of_the_docs_stops_a_run(place, tmp_path):
    blocks = re.findall(r"```python\n(.*?)```", (DOCS / "plugins.md").read_text(encoding="utf-8"), re.S)
    (place / "stop_at.py").write_text(next(block for block in blocks if "class StopAt" in block))
    with plugins.using([place / "stop_at.py"]):
        run = go(place, tmp_path / "run", "--runtime.callbacks", "[{StopAt: {loss: 100}}]")
    assert run.clock.step == 1
    assert [path.name for path in run.folder.checkpoints.iterdir()] == ["step-000000001"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--optimization.lr", "1.0e+39", "--optimization.clip_grad_norm", "null"], "student"),
        (["--optimization.lr", "0.1", "--optimization.weight_decay", "1.0e+38"], "student"),
    ],
)
def test_an_update_that_is_not_finite_ends_the_run_and_is_not_saved(place, tmp_path, words, named):
    quiet = ["--evaluation.evaluators", "[]", "--runtime.log_every", "5", "--runtime.checkpoint_every", "1 steps"]
    with pytest.raises(RunError, match=rf"step \d+: {named}.* are not finite, though the gradients were") as raised:
        go(place, tmp_path / "run", *quiet, *words)
    assert "Try a lower optimization.lr or weight_decay" in str(raised.value)
    assert read_metrics(tmp_path / "run/metrics.jsonl")[-1]["nonfinite_tensors"] > 0
    for file in (tmp_path / "run").rglob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in load_file(file).values() if tensor.is_floating_point())


def test_a_showcase_shows_what_the_networks_see(place, tmp_path):
    run = go(place, tmp_path / "run", "--optimization.steps", "1", "--evaluation.evaluators", "[]")
    seen = run.visualization.sample_views(3)
    expected = run.make_views(run.batches()[0], epoch=0).narrow(0, 3)
    assert seen.view_ids == (0, 1, 2)
    assert all(torch.equal(a.images, b.images) for a, b in zip(seen.groups, expected.groups, strict=True))
    modes = [module.training for module in run.model.modules()]
    image_features = run.visualization.image_features("test", 10)
    assert [module.training for module in run.model.modules()] == modes
    assert image_features.images.shape == (10, 3, 16, 16)
    assert image_features.labels.shape == (10,)
    run.model.eval()
    torch.testing.assert_close(image_features.features, run.model.teacher.backbone(image_features.images).cls.detach())


def test_views_are_drawn_anew_each_epoch(place, tmp_path, monkeypatch):
    made, make = [], MultiCrop.make

    def recorded(self, prepared, keys, epoch, seed):
        made.append((epoch, seed))
        return make(self, prepared, keys, epoch, seed)

    monkeypatch.setattr(MultiCrop, "make", recorded)
    go(place, tmp_path / "run", "--seed", "3", "--evaluation.evaluators", "[]")
    # The first one tries whether the views can be made, before there is a folder.
    assert made[1:] == [(0, 3)] * 4 + [(1, 3)] * 4


@pytest.mark.parametrize("init", ["copy", "independent"])
def test_the_teacher_starts_as_the_recipe_says(place, tmp_path, init):
    run = go(place, tmp_path / "run", "--method.init", init, *stop("on_run_start"))
    same = torch.equal(
        run.model.student.head.projector[0].weight,
        run.model.teacher.head.projector[0].weight,
    )
    assert same == (init == "copy")
