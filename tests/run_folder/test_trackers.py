"""What trackers are told, once each, also after a resume; and that none of them costs the run."""

import json
import logging
import struct
from io import StringIO
from pathlib import Path

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS, GeneralTracker
from rich.console import Console

from sslkit import plugins
from sslkit.cli.main import main
from sslkit.errors import SSLKitError
from sslkit.launch import train
from sslkit.recipe import load
from sslkit.run_folder import tracker as one
from sslkit.run_folder.metrics_log import read_metrics
from sslkit.run_folder.results import read_results
from sslkit.run_folder.tracker import RESUME_SUPPORT, ResumeSupport
from sslkit.run_folder.trackers import STATE, Trackers

TINY = Path(__file__).parents[1] / "tiny_parts.py"
RECIPE = """\
method:
  backbone: TinyBackbone
  head: TinyHead
  teacher: TinyTeacher
  collapse: TinyOperator
  loss: TinyLoss
views: TinyViews
data: {train: TinyImages, test: {TinyImages: {split: test}}}
optimization: {optimizer: TinyOptimizer, batch_size: 8, epochs: 3, lr: TinySchedule}
precision: fp32
runtime: {device: cpu, threads: 1, num_workers: 0, log_every: 1, checkpoint_every: 4 steps, on_collapse: ignore}
evaluation: {evaluators: [{Accuracy: {k: 5}}], every: 3 steps, baselines: [untrained]}
"""
PLUGIN = """\
from sslkit.contracts import Callback, Evaluator


class Crash(Callback):
    def __init__(self, at: int) -> None:
        self.at = at

    def on_step_end(self, run, metrics):
        if metrics["step"] == self.at:
            raise ZeroDivisionError


class Accuracy(Evaluator):
    command, protocol, needs_labels = "accuracy", "accuracy/1", False

    def __init__(self, k: int) -> None:
        self.k = k

    def run(self, backbone, data):
        yield f"accuracy/top1@{self.k}", 12.5
"""
STEPS = 12
EVALUATIONS = [(0, "untrained")] + [(step, name) for step in (3, 6, 9, 12) for name in ("teacher", "student")]


class Notebook(GeneralTracker):
    """Writes down in ``books`` what it is told, run by run."""

    name = "notebook"
    requires_logging_directory = True
    books: list["Notebook"] = []
    fails: set[str] = set()

    def __init__(self, project, folder, page=None, **arguments):
        super().__init__()
        self.project, self.folder, self.page, self.arguments = project, folder, page, arguments
        self.config, self.told, self.ended = None, [], False

    @property
    def tracker(self):
        return self

    def start(self):
        self._perhaps_fail("start")
        self.page = self.page or f"page {len(self.books)}"
        self.books.append(self)

    def store_init_configuration(self, values):
        self.config = values

    def log(self, values, step=None, **_):
        self._perhaps_fail(f"log {step}")
        self.told.append((step, values))

    def finish(self):
        self._perhaps_fail("finish")
        self.ended = True

    def _perhaps_fail(self, moment):
        if moment in self.fails:
            raise RuntimeError(f"no line\nto anywhere at {moment}")


@pytest.fixture(autouse=True)
def _notebook(monkeypatch):
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "notebook", Notebook)
    monkeypatch.setattr(Notebook, "books", [])
    monkeypatch.setattr(Notebook, "fails", set())


@pytest.fixture
def continues(monkeypatch):
    """Let notebooks go on with their page."""
    resume_support = ResumeSupport(
        lambda folder: {"page": None}, lambda book: book.page, lambda page: {"page": page}, "@"
    )
    monkeypatch.setitem(RESUME_SUPPORT, "notebook", resume_support)


def run(tmp_path, trackers="[notebook]", folder="run", resume=False, crash=None):
    path, plugin = tmp_path / "tiny.yaml", tmp_path / "crash.py"
    path.write_text(RECIPE)
    plugin.write_text(PLUGIN)
    callbacks = ["--runtime.callbacks", f"[{{Crash: {{at: {crash}}}}}]"] if crash else []
    with plugins.using([TINY, plugin]):
        recipe = load(path, ["--runtime.trackers", trackers, *callbacks])
        return train(recipe, tmp_path / folder, resume, Console(file=StringIO()))


def crashed_and_resumed(tmp_path, trackers="[notebook]", crashes=(11,)):
    for crash in crashes:
        with pytest.raises(ZeroDivisionError):
            run(tmp_path, trackers, resume=True, crash=crash)
    return run(tmp_path, trackers, resume=True)


def in_files(folder, illegal="none"):
    """What metrics.jsonl and results.json hold, as trackers are told it: (step, name) to value."""
    rows = [(row["step"], row) for row in read_metrics(folder / "metrics.jsonl")]
    for row in read_results(folder / "results.json"):
        rows.append((row["step"], {f"{row['network']}/{name}": value for name, value in row["metrics"].items()}))
    named = [(step, name.replace(illegal, "_"), value) for step, row in rows for name, value in row.items()]
    return {(step, name): value for step, name, value in named if name != "step" and value is not None}


def as_told(*books):
    told = [((step, name), value) for book in books for step, values in book.told for name, value in values.items()]
    assert len(told) == len(dict(told)), "told twice"
    return dict(told)


TIMING = ("images_per_second", "data_wait_fraction")


def untimed(told):
    return {key: value for key, value in told.items() if key[1] not in TIMING}


def test_it_is_told_every_row_every_evaluation_and_the_recipe(tmp_path):
    run(tmp_path, "[{notebook: {project: mine, tags: [a, b]}}]")
    [book] = Notebook.books
    assert as_told(book) == in_files(tmp_path / "run")
    assert {(step, name) for step, name in as_told(book) if "/" in name} == {
        (step, f"{network}/accuracy/top1@5") for step, network in EVALUATIONS
    }
    assert [step for step, _ in book.told] == sorted(step for step, _ in book.told)
    assert book.ended
    assert (book.project, book.folder, book.arguments) == ("mine", str(tmp_path / "run"), {"tags": ["a", "b"]})
    assert book.config["method.backbone.TinyBackbone.width"] == 8
    assert book.config["evaluation.evaluators"] == '[{"Accuracy": {"k": 5}}]'
    assert all(value is None or isinstance(value, bool | int | float | str) for value in book.config.values())


def test_trackers_change_nothing_of_a_run(tmp_path):
    with_one, without = run(tmp_path), run(tmp_path, "[]", "other")
    assert untimed(in_files(with_one.folder.path)) == untimed(in_files(without.folder.path))
    assert with_one.record.identity == without.record.identity
    assert not (without.folder.path / STATE).exists()


@pytest.mark.usefixtures("continues")
@pytest.mark.parametrize("crashes", [(2,), (12,), (7, 11, 10)])
def test_a_resumed_run_goes_on_in_the_same_page_without_telling_twice(tmp_path, crashes):
    crashed_and_resumed(tmp_path, crashes=crashes)
    assert {book.page for book in Notebook.books} == {"page 0"}
    assert untimed(as_told(*Notebook.books)) == untimed(in_files(tmp_path / "run", "@"))
    assert [book.config is None for book in Notebook.books] == [False, *[True] * len(crashes)]
    assert all(book.ended for book in Notebook.books)


def test_one_that_cannot_go_on_is_told_everything_in_a_new_run(tmp_path):
    crashed_and_resumed(tmp_path)
    first, second = Notebook.books
    assert untimed(as_told(second)) == untimed(in_files(tmp_path / "run"))
    assert [step for step, _ in second.told] == sorted(step for step, _ in second.told)
    assert second.config.keys() == first.config.keys()
    assert max(step for step, _ in first.told) == 11


@pytest.mark.usefixtures("continues")
def test_one_that_is_asked_for_later_is_told_what_was_before(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, "[]", crash=6)
    run(tmp_path, resume=True)
    [book] = Notebook.books
    assert untimed(as_told(book)) == untimed(in_files(tmp_path / "run", "@"))


@pytest.mark.usefixtures("continues")
def test_one_that_was_left_out_meanwhile_starts_anew(tmp_path):
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, crash=6)
    with pytest.raises(ZeroDivisionError):
        run(tmp_path, "[]", resume=True, crash=9)
    run(tmp_path, resume=True)
    assert [book.page for book in Notebook.books] == ["page 0", "page 1"]
    assert untimed(as_told(Notebook.books[1])) == untimed(in_files(tmp_path / "run", "@"))


@pytest.mark.parametrize("moment", ["start", "log 5", "finish"])
def test_a_failure_costs_one_warning(moment, tmp_path, caplog):
    Notebook.fails.add(moment)
    with caplog.at_level(logging.WARNING):
        done = run(tmp_path)
    assert len(read_metrics(done.folder.metrics)) == done.clock.step == STEPS
    [warning] = [record.getMessage() for record in caplog.records if "notebook" in record.getMessage()]
    assert "nothing" in warning
    assert "(RuntimeError: no line to anywhere" in warning
    assert Notebook.books == [] if moment == "start" else not Notebook.books[0].ended


def test_a_failure_of_one_is_not_the_others(tmp_path, monkeypatch):
    class Sound(Notebook):
        name = "sound"
        books, fails = [], set()

    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "sound", Sound)
    Notebook.fails.add("log 5")
    run(tmp_path, "[notebook, sound]")
    assert as_told(*Sound.books) == in_files(tmp_path / "run")


def test_what_is_not_finite_is_left_out(tmp_path):
    trackers = Trackers(["notebook"], "project", tmp_path)
    trackers.start("seed: 0\n")
    trackers.log({"step": 3, "loss": float("nan"), "lr": 0.5, "gone": None, "rank": float("inf")})
    trackers.evaluated([{"step": None, "network": "teacher", "metrics": {"knn/top1": 1.0}}])
    assert Notebook.books[0].told == [(3, {"lr": 0.5})]


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("[tensorbord]", r": unknown tracker 'tensorbord'. Did you mean 'tensorboard'\? Choices: aim, .*notebook"),
        ("[notebook, none]", r": unknown tracker 'none'.* Choices: aim"),
        ("notebook", " must be a list"),
        ("[3]", " must be a list"),
        ("[{notebook: 3}]", " must be a list"),
    ],
)
def test_a_wrong_name_is_refused_before_anything_is_written(wanted, message, tmp_path):
    with pytest.raises(SSLKitError, match=rf"^runtime\.trackers{message}"):
        run(tmp_path, wanted)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", ["wandb", "aim"])
def test_one_that_is_not_installed_is_refused_with_what_installs_it(name, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(one, "get_available_trackers", lambda: ["mlflow", "tensorboard"])
    choices = r"choices that are: mlflow, tensorboard\. Run\n  (uv )?pip install"
    with pytest.raises(SSLKitError, match=rf"^runtime\.trackers: {name} is not installed here; {choices} {name}$"):
        run(tmp_path, f"[{name}]")
    assert not (tmp_path / "run").exists()
    words = ["--run-dir", str(tmp_path / "run"), "--plugin", str(TINY), "--plugin", str(tmp_path / "crash.py")]
    assert main(["train", str(tmp_path / "tiny.yaml"), *words, "--runtime.trackers", f"[{name}]"]) == 2
    assert "pip install" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_arguments_that_it_does_not_take_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(Notebook, "__init__", lambda self, project, folder, page=None: None)
    with pytest.raises(SSLKitError, match=r"runtime\.trackers: notebook does not take these arguments: .*'pages'"):
        run(tmp_path, "[{notebook: {pages: 3}}]")
    assert not (tmp_path / "run" / "recipe.yaml").exists()


def scalars(folder):
    """What TensorBoard shows of a folder: (step, name) and value, in order."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder), size_guidance={"scalars": 0}).Reload()
    return [((event.step, tag), event.value) for tag in events.Tags()["scalars"] for event in events.Scalars(tag)]


def assert_told_once(told, folder, illegal="none"):
    assert len(told) == len(dict(told)), "told twice"
    assert untimed(dict(told)) == pytest.approx(untimed(in_files(folder, illegal)), rel=1e-6)


def test_tensorboard(tmp_path):
    pytest.importorskip("tensorboard")
    crashed_and_resumed(tmp_path, "[{tensorboard: {flush_secs: 7}}]", (11, 10))
    folder = tmp_path / "run" / "tensorboard"
    assert_told_once(scalars(folder), tmp_path / "run")
    [config] = folder.glob("*/hparams.yml")
    assert "method.backbone.TinyBackbone.width: 8" in config.read_text()


def test_tensorboard_hides_what_another_run_left(tmp_path):
    pytest.importorskip("tensorboard")
    run(tmp_path, "[tensorboard]")
    (tmp_path / "run" / STATE).unlink()
    run(tmp_path, "[tensorboard]", resume=True)
    assert_told_once(scalars(tmp_path / "run" / "tensorboard"), tmp_path / "run")


def test_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path}/mlruns")
    crashed_and_resumed(tmp_path, "[{mlflow: {description: tiny}}]", (11, 10))
    client = mlflow.MlflowClient(f"file:{tmp_path}/mlruns")
    experiment = client.get_experiment_by_name("tiny")
    [kept] = client.search_runs([experiment.experiment_id])
    assert kept.info.run_name == "run"
    assert kept.data.params["method.backbone.TinyBackbone.width"] == "8"
    histories = {name: client.get_metric_history(kept.info.run_id, name) for name in kept.data.metrics}
    told = [((each.step, name), each.value) for name, history in histories.items() for each in history]
    assert_told_once(told, tmp_path / "run", "@")


def test_wandb_offline(tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    crashed_and_resumed(tmp_path, "[{wandb: {project: mine, tags: [a]}}]")
    histories, runs = [], []
    for record in wandb_records(tmp_path / "run" / "wandb"):
        if record.WhichOneof("record_type") == "run":
            runs.append((record.run.project, record.run.display_name, record.run.run_id))
        elif record.WhichOneof("record_type") == "history":
            items = record.history.item
            histories.append({"/".join(each.nested_key) or each.key: json.loads(each.value_json) for each in items})
    told = [((row["_step"], name), row[name]) for row in histories for name in row if not name.startswith("_")]
    # The server drops what it is told twice.
    assert_told_once(dict(told).items(), tmp_path / "run")
    assert set(runs) == {("mine", "run", runs[0][2])}


def wandb_records(folder):
    """The records of W&B's files: LevelDB's log format, blocks of 32 KiB, after a header of 7 bytes."""
    from wandb.proto.wandb_internal_pb2 import Record

    for path in sorted(folder.glob("offline-run-*/*.wandb")):
        data, place, parts = path.read_bytes(), 7, b""
        while place < len(data):
            left = 32768 - place % 32768
            if left < 7:
                place += left
                continue
            length, kind = struct.unpack_from("<HB", data, place + 4)
            parts += data[place + 7 : place + 7 + length]
            place += 7 + length
            if kind in (1, 4):  # whole, or its last part
                yield Record.FromString(parts)
                parts = b""
