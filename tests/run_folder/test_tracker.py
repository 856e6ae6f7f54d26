"""One tracker: what it may be called, what it is given, and that its failure ends it alone."""

import logging

import pytest
from accelerate.tracking import LOGGER_TYPE_TO_CLASS

from sslkit.errors import RecipeError, UnknownName
from sslkit.run_folder import tracker as module
from sslkit.run_folder.tracker import Tracker, check, start


class Book:
    """accelerate's interface of a tracker, kept in memory."""

    requires_logging_directory = False
    broken = False

    def __init__(self, project, **arguments):
        if "colour" in arguments:
            raise TypeError("unexpected keyword argument 'colour'")
        self.project, self.arguments, self.rows, self.settings, self.closed = project, arguments, [], {}, False

    @property
    def tracker(self):
        return self

    def start(self):
        if self.broken:
            raise RuntimeError("no\nnetwork")

    def store_init_configuration(self, settings):
        self.settings = settings

    def log(self, numbers, step):
        if self.broken:
            raise OSError("full")
        self.rows.append((step, numbers))

    def finish(self):
        self.closed = True


@pytest.fixture
def book(monkeypatch):
    kind = type("Mine", (Book,), {})
    monkeypatch.setitem(LOGGER_TYPE_TO_CLASS, "book", kind)
    return kind


def begun(tmp_path, arguments=None, state=None, recipe="seed: 3\n", name="book"):
    return start(name, arguments or {}, "project", tmp_path / "run", state, recipe)


def test_a_new_run_gets_the_recipe_flat(book, tmp_path):
    recipe = "name: x\nmethod: {teacher: {EMA: {momentum: 0.9}}, predictor: null}\nviews: [1, {a: 2}]\nempty: {}\n"
    tracker = begun(tmp_path, {"tags": 3}, recipe=recipe)
    assert (tracker.tracker.project, tracker.tracker.arguments) == ("project", {"tags": 3})
    assert tracker.tracker.settings == {
        "name": "x",
        "method.teacher.EMA.momentum": 0.9,
        "method.predictor": None,
        "views": '[1, {"a": 2}]',
        "empty": "{}",
    }
    assert tracker.state() is None


@pytest.mark.parametrize("word", ["project", "project_name", "experiment_name"])
def test_a_project_may_be_named(book, tmp_path, word):
    tracker = begun(tmp_path, {word: "mine"})
    assert (tracker.tracker.project, tracker.tracker.arguments) == ("mine", {})


def test_a_run_that_goes_on_keeps_its_settings_and_what_it_has(book, tmp_path):
    tracker = begun(tmp_path, state={"run": "id", "told": [[3, ""], [3, "teacher"]]})
    assert tracker.tracker.settings == {}
    assert tracker.is_resumed


def test_a_failure_is_one_warning_and_nothing_more_is_logged(book, tmp_path, caplog):
    tracker = begun(tmp_path)
    with caplog.at_level(logging.WARNING, "sslkit.training"):
        book.broken = True
        for step in (1, 2):
            tracker.log((step, ""), {"loss": 1.0})
        book.broken = False
        tracker.log((3, ""), {"loss": 1.0})
        tracker.close()
    assert [record.getMessage() for record in caplog.records] == [caplog.messages[0]]
    assert "book failed at step 1" in caplog.messages[0]
    assert (tracker.tracker.rows, tracker.tracker.closed) == ([], False)


def test_one_that_does_not_start_is_one_warning(book, tmp_path, caplog):
    book.broken = True
    with caplog.at_level(logging.WARNING, "sslkit.training"):
        assert begun(tmp_path) is None
    (message,) = caplog.messages
    assert "RuntimeError: no network" in message


def test_arguments_that_it_does_not_take_are_the_recipes_mistake(book, tmp_path):
    with pytest.raises(RecipeError, match=r"runtime\.trackers: book does not take these arguments: .*'colour'"):
        begun(tmp_path, {"colour": "red"})


def test_names_get_the_characters_that_a_tracker_allows(tmp_path):
    tracker = Tracker("mlflow", Book("project"))
    tracker.log((3, ""), {"knn/top1@20": 1.0, "loss": 2.0})
    assert tracker.tracker.rows == [(3, {"knn/top1_20": 1.0, "loss": 2.0})]


def test_names_that_cannot_be_used_are_refused(monkeypatch):
    with pytest.raises(UnknownName, match="Did you mean 'wandb'"):
        check("wandbb")
    monkeypatch.setattr(module, "get_available_trackers", lambda: ["mlflow"])
    check("mlflow")
    with pytest.raises(
        RecipeError, match=r"wandb is not installed here; choices that are: mlflow\. Run\n  (uv )?pip install wandb"
    ):
        check("wandb")
