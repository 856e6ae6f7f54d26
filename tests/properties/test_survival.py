"""What a run survives: numbers that are not finite, a full disk, another process, and SIGKILL at any moment."""

import errno
import hashlib
import json
import multiprocessing
import os
import random
import signal
import sys
import time
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file

from sslkit import plugins
from sslkit.callbacks import SummaryPicture
from sslkit.checkpoint import files
from sslkit.cli.main import main
from sslkit.errors import RunError
from sslkit.launch import train
from sslkit.recipe import load
from sslkit.run_folder import metrics_log, results
from sslkit.run_folder.lock import LOCK, alone_in
from sslkit.run_folder.metrics_log import read_metrics
from sslkit.run_folder.results import read_results
from sslkit.training.trainer import Trainer

pytestmark = pytest.mark.forks

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
  collapse: Centering
  loss: CrossEntropy
views: {MultiCrop: {crop_on: device, canvas_size: 16, global_size: 16, num_local_views: 1, local_size: 8}}
data:
  train: {Textures: {num_images: 34, size: 16}}
  test: {Textures: {num_images: 16, size: 16, split: test}}
optimization:
  optimizer: AdamW
  batch_size: 8
  epochs: 3
  lr: {Cosine: {start: 0.02, end: 0.001, warmup: 3 steps}}
  weight_decay: 0.04
  clip_grad_norm: 0.5
precision: fp32
runtime: {device: cpu, threads: 1, num_workers: 0, log_every: 2, checkpoint_every: 3 steps}
evaluation: {evaluators: [{KNN: {k: [5]}}], every: 5 steps, baselines: [raw-pixels, untrained]}
"""
STEPS = 12
BRANCHES = ("teacher", "student")
TIMING = {"images_per_second", "data_wait_fraction"}
UNMEASURED = ["--evaluation.evaluators", "[]", "--evaluation.baselines", "[]"]
MLP = ["--method.head", "{MLPHead: {hidden_dim: 16, embed_dim: 8}}"]
METHODS = {
    "dino": [],
    "byol": [
        *MLP, "--method.predictor", "{MLPPredictor: {hidden_dim: 16}}", "--method.init", "independent",
        "--method.student_views", "globals", "--method.collapse", "null", "--method.loss", "MSE",
        "--optimization.optimizer", "LARS",
    ],
    "moco": [
        *MLP, "--method.collapse", "{NegativeQueue: {size: 21}}", "--method.loss", "InfoNCE",
        "--method.student_views", "[0]", "--method.teacher_views", "[1]", "--optimization.optimizer", "SGD",
        "--method.batch_norm", "4",
    ],
    "swav": [
        "--method.head", "{SwAVHead: {num_prototypes: 12, hidden_dim: 16, embed_dim: 8}}", "--method.teacher", "Copy",
        "--method.collapse", "{SinkhornKnopp: {queue_size: 16, queue_start: 2 steps}}",
        "--optimization.optimizer", "LARC", "--optimization.freeze", "{prototypes: 2 steps}",
    ],
}  # fmt: skip

SPOIL = '''\
import math

import torch

from sslkit.contracts import Callback


class Spoil(Callback):
    """Has the student's features be no numbers in some steps.

    Args:
        first: the first of them, counted from 1.
        last: the last one.
        how: loss, or gradients for these alone.
    """

    def __init__(self, first: int = 1, last: int = 1, how: str = "loss") -> None:
        self.first, self.last, self.how = first, last, how

    def on_run_start(self, run):
        def spoil(module, inputs, features):
            if self.first <= run.clock.step + 1 <= self.last and torch.is_grad_enabled():
                if self.how == "loss":
                    features.cls[0, 0] = math.nan
                else:
                    features.cls.register_hook(lambda gradient: gradient * math.inf)

        run.model.student.backbone.register_forward_hook(spoil)


class StopAt(Callback):
    """Interrupts a run after a step of which there is a row."""

    def __init__(self, step: int = 1) -> None:
        self.step = step

    def on_step_end(self, run, metrics):
        run.interrupted = metrics["step"] == self.step
'''


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("recipes")
    (folder / "tiny.yaml").write_text(RECIPE)
    (folder / "spoil.py").write_text(SPOIL)
    return folder


@pytest.fixture(autouse=True)
def _offered(place):
    with plugins.using([place / "spoil.py"]):
        yield


@pytest.fixture(scope="module")
def whole(place, tmp_path_factory):
    """Return the folder of a run that nothing disturbed."""
    with plugins.using([place / "spoil.py"]):
        return go(place, tmp_path_factory.mktemp("whole") / "run").folder.path


def go(place, folder, *words, resume=True):
    return train(load(place / "tiny.yaml", words), folder, resume, Console(file=StringIO(), width=120))


def spoilt(first, last, *others, how="loss"):
    spoil = f"{{Spoil: {{first: {first}, last: {last}, how: {how}}}}}"
    return ["--runtime.callbacks", f"[{', '.join([spoil, *others])}]", *UNMEASURED]


def rows(folder):
    return [{n: v for n, v in row.items() if n not in TIMING} for row in read_metrics(folder / "metrics.jsonl")]


def skipped(folder):
    return [json.loads(line) for line in (folder / "skipped.jsonl").read_text().splitlines()]


def last_state(folder):
    return load_file(sorted((folder / "checkpoints").glob("step-*"))[-1] / "state.safetensors")


def what_is_left(folder):
    """Return everything that must not depend on what happened on the way."""
    newest = sorted((folder / "checkpoints").glob("step-*"))[-1]
    backbones = {name: (folder / name / "model.safetensors").read_bytes() for name in BRANCHES}
    return {
        "step": newest.name,
        "weights": (newest / "state.safetensors").read_bytes(),
        "numbers": (newest / "state.json").read_text(),
        "rows": rows(folder),
        "results": read_results(folder / "results.json"),
        **backbones,
    }


def assert_same_run(folder, other):
    mine, theirs = what_is_left(folder), what_is_left(other)
    assert [name for name in theirs if mine[name] != theirs[name]] == []


# Numbers that are not finite


def test_skipped_steps_are_counted_and_their_images_written_down(place, tmp_path, caplog):
    run = go(place, tmp_path / "run", *spoilt(4, 5))
    assert [(row["step"], row["skipped_steps"]) for row in run.metrics] == [
        (1, 0), (2, 0), (4, 1), (6, 2), (8, 2), (10, 2), (12, 2)
    ]  # fmt: skip
    found = skipped(run.folder.path)
    assert [(row["step"], row["not_finite"]) for row in found] == [(n, ["loss", "gradients"]) for n in (4, 5)]
    assert [row["keys"] for row in found] == [run.batches()[step].keys.tolist() for step in (3, 4)]
    assert [record.message for record in caplog.records] == [
        f"step {n} moved nothing; not finite: loss, gradients" for n in (4, 5)
    ]
    assert all(value.isfinite().all() for value in last_state(run.folder.path).values())
    assert run.metrics[2]["loss"] is None


def test_a_skipped_step_is_as_if_only_its_images_had_been_left_out(place, tmp_path):
    """The step's number, and with it the schedules and the next images, go on."""
    spoilt_run = go(place, tmp_path / "spoilt", *spoilt(5, 5))
    other = go(place, tmp_path / "other", "--runtime.callbacks", "[{StopAt: {step: 4}}]", *UNMEASURED)
    other.clock = other.clock.at(5)
    for step in range(5, STEPS):
        other.clock = other.clock.at(step)
        other._step(other.batches()[step])
    mine, theirs = spoilt_run.model.state_dict(), other.model.state_dict()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


def test_a_streak_ends_the_run_with_a_diagnosis_and_exit_code_1(place, tmp_path, capsys):
    words = ["train", str(place / "tiny.yaml"), "--run-dir", str(tmp_path / "run"), "--runtime.skip_limit", "3"]
    assert main([*words, *spoilt(6, 99)]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    # Noticed where rows are written.
    assert said.startswith("sslkit: the last 3 steps, 6 to 8, moved nothing; not finite: loss, gradients. Try ")
    assert "--resume --runtime.roll_backs 1 goes on" in said
    assert [row["step"] for row in skipped(tmp_path / "run")] == [6, 7, 8]
    # Step 6 is saved, because 4 and 5 moved something.
    kept = sorted(path.name for path in (tmp_path / "run/checkpoints").glob("step-*"))
    assert kept == ["step-000000003", "step-000000006"]


def test_a_roll_back_goes_on_from_older_networks_with_newer_images(place, tmp_path):
    words = ["--runtime.skip_limit", "3", *spoilt(6, 8)]
    with pytest.raises(RunError):
        go(place, tmp_path / "run", *words)
    run = go(place, tmp_path / "run", *words, "--runtime.roll_backs", "1")
    assert skipped(run.folder.path)[-1] == {"step": 8, "rolled_back_to": 3}
    assert [row["skipped_steps"] for row in run.metrics] == [0, 0, 0, 1, 3, 3, 3]
    other = go(place, tmp_path / "other", "--runtime.callbacks", "[{StopAt: {step: 4}}]", *UNMEASURED)
    assert other.checkpoint_manager.load(before=4) == 3
    for step in range(8, STEPS):
        other.clock = other.clock.at(step)
        other._step(other.batches()[step])
    mine, theirs = run.model.state_dict(), other.model.state_dict()
    assert [name for name in mine if not torch.equal(mine[name], theirs[name])] == []


@pytest.mark.parametrize("stop", [6, 8, 10])
def test_streaks_and_roll_backs_are_resumed(place, tmp_path, stop):
    words = ["--runtime.skip_limit", "3", "--runtime.roll_backs", "1"]
    undisturbed = go(place, tmp_path / "whole", *words, *spoilt(6, 8)).folder.path
    go(place, tmp_path / "run", *words, *spoilt(6, 8, f"{{StopAt: {{step: {stop}}}}}"))
    run = go(place, tmp_path / "run", *words, *spoilt(6, 8))
    assert_same_run(run.folder.path, undisturbed)
    assert skipped(run.folder.path) == skipped(undisturbed)


def test_steps_that_moved_nothing_are_not_saved(place, tmp_path, monkeypatch):
    """They would push out what was saved before them."""
    saved, save = [], Trainer.save
    monkeypatch.setattr(Trainer, "save", lambda run: (saved.append(run.clock.step), save(run)))
    go(place, tmp_path / "run", "--runtime.checkpoint_every", "1 steps", *spoilt(5, 10))
    assert saved == [1, 2, 3, 4, 11, 12]


def test_roll_backs_are_numbered(place, tmp_path):
    words = ["--runtime.skip_limit", "2", "--runtime.roll_backs", "1", "--runtime.log_every", "1"]
    with pytest.raises(RunError, match=r"the last 2 steps, 9 to 10, .* --runtime.roll_backs 2 goes on"):
        go(place, tmp_path / "run", *words, *spoilt(5, 6, "{Spoil: {first: 9, last: 10}}"))
    assert [row["rolled_back_to"] for row in skipped(tmp_path / "run") if "keys" not in row] == [3]


def test_a_second_roll_back_does_not_go_to_what_led_to_the_first_streak(place, tmp_path):
    words = ["--runtime.skip_limit", "2", "--runtime.roll_backs", "2", "--runtime.log_every", "1"]
    words += ["--runtime.checkpoint_every", "2 steps", "--runtime.keep_checkpoints", "9"]
    run = go(place, tmp_path / "run", *words, *spoilt(6, 9))
    assert [(row["step"], row["rolled_back_to"]) for row in skipped(run.folder.path) if "keys" not in row] == [
        (7, 4), (9, 2)
    ]  # fmt: skip
    assert (run.folder.checkpoints / "step-000000006").exists()


def test_without_a_checkpoint_before_them_there_is_no_going_back(place, tmp_path):
    """A checkpoint of the very step before them is what is there already."""
    words = ["--runtime.skip_limit", "2", "--runtime.roll_backs", "5"]
    for first in (1, 4):
        with pytest.raises(RunError, match=r"moved nothing; not finite: gradients\. The loss is finite"):
            go(place, tmp_path / str(first), *words, *spoilt(first, 99, how="gradients"))


# A full disk, a folder that cannot be written


def no_room():
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.fixture
def full(monkeypatch):
    """Return the names that find no room; checkpoints whose folder holds one of them are not written."""
    names, save = set(), files.save_file

    def save_file(tensors, path):
        if any(name in str(path) for name in names):
            raise no_room()
        save(tensors, path)

    monkeypatch.setattr(files, "save_file", save_file)
    return names


def test_a_full_disk_delays_a_checkpoint_and_loses_nothing(place, whole, tmp_path, full, caplog):
    full.add("step-000000006")
    run = go(place, tmp_path / "run")
    assert [record.message for record in caplog.records] == [
        "step 6 is not saved: [Errno 28] No space left on device. The checkpoints before it stay"
    ]
    assert_same_run(run.folder.path, whole)
    assert [path.name for path in sorted(run.folder.checkpoints.iterdir())] == ["step-000000009", "step-000000012"]


def test_a_disk_that_stays_full_ends_the_run_with_exit_code_1(place, whole, tmp_path, full, capsys):
    words = ["train", str(place / "tiny.yaml"), "--run-dir", str(tmp_path / "run"), "--resume"]
    full |= {"step-000000006", "step-000000009", "step-000000012"}
    assert main(words) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("sslkit: step 12 could not be saved: [Errno 28] No space left on device. What was saved")
    assert [path.name for path in (tmp_path / "run/checkpoints").iterdir()] == ["step-000000003"]
    full.clear()
    assert main(words) == 0
    assert_same_run(tmp_path / "run", whole)


def test_rows_wait_for_room_and_no_checkpoint_is_ahead_of_them(place, whole, tmp_path, monkeypatch, caplog):
    append, calls = metrics_log.StepRows._append, []

    def without_room(rows):
        if rows.path.name == "metrics.jsonl":
            calls.append(rows)
            if 3 <= len(calls) <= 8:
                raise no_room()
        append(rows)

    monkeypatch.setattr(metrics_log.StepRows, "_append", without_room)
    run = go(place, tmp_path / "run")
    said = [record.message for record in caplog.records]
    assert [text.split(":")[0].replace(str(tmp_path), "") for text in said] == [
        "/run/metrics.jsonl cannot be written ([Errno 28] No space left on device); its rows wait",
        "step 6 is not saved",
        "step 9 is not saved",
    ]
    assert_same_run(run.folder.path, whole)


def test_results_wait_for_room(place, whole, tmp_path, monkeypatch, caplog):
    write, failures = results.write_text, []

    def write_text(path, text):
        if path.name == "results.json" and len(failures) < 3 and '"step": 5' in text:
            failures.append(path)
            raise no_room()
        write(path, text)

    monkeypatch.setattr(results, "write_text", write_text)
    run = go(place, tmp_path / "run")
    assert [record.message.split(" ")[0] for record in caplog.records] == [
        *[str(tmp_path / "run/results.json")] * 2,
        "step",
    ]
    assert_same_run(run.folder.path, whole)


def test_a_callback_without_room_costs_a_warning(place, tmp_path, caplog, monkeypatch):
    def fail(self, run):
        raise no_room()

    monkeypatch.setattr(SummaryPicture, "on_run_end", fail)
    words = [
        "--optimization.steps",
        "1",
        "--optimization.lr",
        "0.001",
        "--runtime.callbacks",
        "[SummaryPicture]",
        *UNMEASURED,
    ]
    go(place, tmp_path / "run", *words)
    assert [record.message for record in caplog.records] == [f"SummaryPicture: {no_room()}"]
    monkeypatch.setattr(SummaryPicture, "on_run_end", lambda self, run: (tmp_path / "none/none").read_text())
    with pytest.raises(FileNotFoundError):
        go(place, tmp_path / "other", *words)


# Another process


def test_a_run_folder_in_use_is_refused_and_untouched(place, tmp_path, capsys):
    path = go(place, tmp_path / "run", "--optimization.steps", "1", *UNMEASURED).folder.path
    with alone_in(path):
        before = {file: file.stat().st_mtime_ns for file in path.rglob("*")}
        words = ["train", str(path / "recipe.yaml"), "--run-dir", str(path), "--resume"]
        assert main(words) == 2
        said = capsys.readouterr().err.splitlines()[-1]
        assert said.startswith(f"sslkit: --run-dir: {path} is in use by process {os.getpid()} on ")
        assert {file: file.stat().st_mtime_ns for file in path.rglob("*")} == before
    assert main(words) == 0
    assert (path / LOCK).exists()


@pytest.mark.parametrize("spot", ["run", "run/checkpoints"])
def test_a_folder_that_cannot_be_written_is_refused_before_the_start(place, tmp_path, spot, capsys, monkeypatch):
    """Also where it holds a run to go on with."""
    path = go(place, tmp_path / "run", "--runtime.callbacks", "[{StopAt: {step: 4}}]", *UNMEASURED).folder.path
    truncate(sorted(path.glob("checkpoints/step-*"))[-1] / "state.json")
    protect(monkeypatch, tmp_path / spot)
    assert main(["train", str(path / "recipe.yaml"), "--run-dir", str(path), "--resume"]) == 2
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith(f"sslkit: --run-dir: {path} cannot be written: [Errno 30] Read-only file system")


def truncate(file):
    file.write_bytes(file.read_bytes()[:-9])


def protect(monkeypatch, folder):
    """Have the system refuse to write in a folder; permissions do not keep root from it."""

    def refusing(call):
        def refuse(path, *words, **others):
            writes = call.__name__ != "open" or words[:1] not in ((), ("r",), ("rb",), (os.O_RDONLY,))
            if writes and Path(os.fspath(path)).parent == folder:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return call(path, *words, **others)

        return refuse

    for place, name in ((Path, "open"), (Path, "rename"), (Path, "replace"), (os, "open")):
        monkeypatch.setattr(place, name, refusing(getattr(place, name)))


# SIGKILL


needs_fork = pytest.mark.skipif(sys.platform != "linux" or torch.cuda.is_available(), reason="forks, on a CPU alone")


def forked(work, *words):
    """Start work in a process of its own."""
    process = multiprocessing.get_context("fork").Process(target=work, args=words)
    process.start()
    return process


def killed(process, moment, wait=lambda: None):
    """Kill a process in such a moment: it is stopped, asked again and only then killed. Return whether there was one.

    Args:
        process: a child.
        moment: whether it has come.
        wait: how long after it has come.
    """
    while process.is_alive():
        if moment():
            wait()
            os.kill(process.pid, signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)
            if moment():
                process.kill()
                process.join()
                return process.exitcode == -signal.SIGKILL
            os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.0005)
    return False


def writes_a_checkpoint(folder):
    return any((folder / "checkpoints").glob(".step-*.tmp/*"))


@needs_fork
def test_killed_in_a_checkpoint_while_it_writes_backbones_and_between_steps(place, whole, tmp_path):
    folder, words = tmp_path / "run", ["--runtime.num_workers", "2"]
    moments = [
        lambda: writes_a_checkpoint(folder),
        lambda: any((folder / f".{name}.tmp").exists() for name in BRANCHES),
        lambda: len(rows(folder)) >= 5,
    ]
    for moment in moments:
        assert killed(forked(go, place, folder, *words), moment)
    # Its workers live on for seconds, and hold nothing.
    last = forked(go, place, folder, *words)
    last.join()
    assert last.exitcode == 0
    assert_same_run(folder, whole)
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    checkpoints = [{path.name for path in (each / "checkpoints").iterdir()} for each in (folder, whole)]
    assert checkpoints[0] == checkpoints[1]


LIVES = 6
LONGER = [
    "--optimization.epochs", "9", "--evaluation.every", "4 steps", "--runtime.num_workers", "2",
    "--runtime.log_every", "1", "--views.crop_on", "workers", "--views.canvas_size", "null",
]  # fmt: skip
LAST = 36


def command(recipe, folder, *words):
    """Be a run as a user starts it."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, 1)
    os.dup2(nowhere, 2)
    started = [sys.executable, "-m", "sslkit", "train", str(recipe), "--run-dir", str(folder), "--resume", *words]
    os.execv(sys.executable, started)


def last_step(folder):
    return int(rows(folder)[-1]["step"]) if (folder / "metrics.jsonl").exists() and rows(folder) else 0


@needs_fork
@pytest.mark.long
@pytest.mark.parametrize("method", [*METHODS, "dino, PreviousEpoch"])
def test_killed_at_five_random_moments_each_method_ends_as_if_nothing_had_happened(place, tmp_path, method):
    """One of the moments is in the middle of a files. Run it with ``-s`` for the table of ``docs/runs.md``."""
    name, _, teacher = method.partition(", ")
    words = [*METHODS[name], *LONGER, *(["--method.teacher", teacher] if teacher else [])]
    whole, folder, draw = tmp_path / "whole", tmp_path / "run", random.Random(method)
    undisturbed = forked(command, place / "tiny.yaml", whole, *words)
    undisturbed.join()
    assert undisturbed.exitcode == 0

    said, steps = [], sorted(draw.sample(range(1, LAST - 4), LIVES - 1))
    in_checkpoint = draw.randrange(LIVES - 1)
    for life, step in enumerate(steps):
        process = forked(command, place / "tiny.yaml", folder, *words)
        if life == in_checkpoint:
            assert killed(process, lambda step=step: last_step(folder) >= step and writes_a_checkpoint(folder))
        else:
            assert killed(process, lambda step=step: last_step(folder) >= step, lambda: time.sleep(draw.random() / 20))
        said.append(f"{last_step(folder)}{' (in a files)' if life == in_checkpoint else ''}")
    last = forked(command, place / "tiny.yaml", folder, *words)
    last.join()
    assert last.exitcode == 0
    assert_same_run(folder, whole)
    print(f"\n| {method} | {', '.join(said)} | `{checksum(whole)}` | `{checksum(folder)}` |")


def checksum(folder):
    """Return that of all weights, moments and states, rows and results."""
    return hashlib.sha256(repr(sorted(what_is_left(folder).items())).encode()).hexdigest()[:12]
