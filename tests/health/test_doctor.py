"""A run folder is examined as it lies there: finished or not, with or without what its recipe needs."""

import json
import math

import numpy as np
import pytest
from folders_of_runs import rows, write_run
from PIL import Image

from sslkit.errors import SSLKitError
from sslkit.health.doctor import diagnose_run


def test_the_course_of_a_run_and_the_cause_in_its_recipe(tmp_path):
    folder = write_run(tmp_path / "hot", rows(400, ill_from=200), ["--method.collapse.temperature", "0.1"])
    found = diagnose_run(folder)
    assert [(verdict.name, verdict.step) for verdict in found.course] == [
        ("too early to say", 10), ("healthy", 100), ("uniform collapse", 250),
    ]  # fmt: skip
    (cause,) = found.causes
    assert cause.reason.startswith("method.collapse: the teacher's temperature starts at 0.1")
    assert list(cause.fix) == ["method.collapse.temperature"]
    assert (found.name, found.total_steps, found.has_prototypes, found.unknown) == ("hot", 1550, True, "")
    assert found.epochs_a_step == pytest.approx(1 / 62)


def test_a_healthy_run_has_no_cause_although_its_recipe_worries(tmp_path):
    found = diagnose_run(write_run(tmp_path / "hot", rows(400), ["--method.collapse.temperature", "0.1"]))
    assert found.verdict.name == "healthy"
    assert found.causes == []


def test_evaluations_count_from_when_they_were_made(tmp_path):
    networks = [("untrained", 0, 40.0), ("teacher", 200, 50.0), ("teacher", 300, 39.0)]
    results = [{"network": n, "protocol": "p", "step": step, "metrics": {"t": v}} for n, step, v in networks]
    found = diagnose_run(write_run(tmp_path / "run", rows(400), results=results))
    assert [(verdict.name, verdict.step) for verdict in found.course][1:] == [("healthy", 100), ("not learning", 300)]


def test_images_need_not_be_there_and_a_recipe_that_cannot_be_read_is_told(tmp_path):
    folder = write_run(tmp_path / "run", rows(400, ill_from=100), ["--data", str(tmp_path / "gone")])
    assert diagnose_run(folder).unknown == ""
    recipe = folder / "recipe.yaml"
    recipe.write_text(recipe.read_text().replace("Centering", "MyOperator"))
    found = diagnose_run(folder)
    assert found.verdict.name == "uniform collapse"
    assert "MyOperator" in found.unknown
    recipe.unlink()
    assert "recipe.yaml" in diagnose_run(folder).unknown


def test_what_is_no_run_is_refused(tmp_path):
    with pytest.raises(SSLKitError, match="holds no run"):
        diagnose_run(tmp_path / "nothing")
    with pytest.raises(SSLKitError, match="a run without a row yet"):
        diagnose_run(write_run(tmp_path / "new", []))


def test_evaluations_that_were_added_later_have_no_step_and_do_not_count(tmp_path):
    added = {"step": None, "network": "teacher", "protocol": "knn-v1", "metrics": {"knn/top1@20": 1.0}}
    found = diagnose_run(write_run(tmp_path / "run", rows(300), results=[added]))
    assert found.verdict.name == "healthy"


def last(**numbers):
    return json.dumps({**rows(300)[-1], **numbers})


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("results.json", "[1"),
        ("results.json", "{}"),
        ("results.json", "null"),
        ("results.json", "[3]"),
        ("results.json", '[{"step": 3, "network": 4}]'),
        ("results.json", '[{"step": 3, "metrics": {"a": "b"}}]'),
        ("results.json", "[" * 100_000),
        ("metrics.jsonl", ""),
        ("metrics.jsonl", "\x00"),
        ("metrics.jsonl", "\udcff"),
        ("metrics.jsonl", "null"),
        ("metrics.jsonl", '{"step": 2}'),
        ("metrics.jsonl", last(step="7")),
        ("metrics.jsonl", last(step=math.inf)),
        ("metrics.jsonl", last(step=-7)),
        ("metrics.jsonl", last(epoch=0)),
        ("metrics.jsonl", last(epoch=-1.0)),
        ("metrics.jsonl", last(epoch=math.nan)),
        ("metrics.jsonl", last(loss="a")),
        ("metrics.jsonl", last(loss=math.nan)),
        ("metrics.jsonl", last(loss=[1])),
        ("metrics.jsonl", last(image_cosine=10**400)),
        ("metrics.jsonl", last(marginal_entropy=math.inf)),
    ],
)
def test_damaged_files_are_a_sentence(tmp_path, file, content):
    folder = write_run(tmp_path / "run", rows(300))
    (folder / file).write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(SSLKitError, match=file):
        diagnose_run(folder)


@pytest.mark.parametrize(
    "numbers",
    [
        {"prototype_use": 0.0},
        {"prototype_use": -1.0},
        {"prototype_use": 1e-320},
        {"marginal_entropy": 1e9},
        {"skipped_steps": None, "lr": None, "teacher_momentum": None},
        {"epoch": 1e9},
    ],
)
def test_numbers_that_mean_nothing_say_nothing(tmp_path, numbers):
    assert diagnose_run(write_run(tmp_path / "run", rows(300, **numbers))).verdict.name == "healthy"


@pytest.mark.parametrize(
    "evaluations",
    [
        [{"step": 3, "network": "teacher"}, {"step": 0, "network": "untrained"}],
        [{"step": 3, "metrics": {"a": 1}}],
        [
            {"step": 0, "network": "untrained", "protocol": "p", "metrics": {"a": 3.0}, "test_images": "x"},
            {"step": 200, "network": "teacher", "protocol": "p", "metrics": {"a": 30.0}, "dataset": [1]},
        ],
        [
            {"step": 0, "network": "untrained", "protocol": "p", "metrics": {"a": 3.0}, "test_images": -2},
            {"step": 200, "network": "teacher", "protocol": "p", "metrics": {"a": 30.0}},
        ],
    ],
)
def test_evaluations_that_lack_something_say_nothing(tmp_path, evaluations):
    assert diagnose_run(write_run(tmp_path / "run", rows(300), results=evaluations)).verdict.name == "healthy"


def test_a_run_that_ended_in_numbers_that_are_not_finite(tmp_path):
    course = [*rows(300), {"step": 305, "epoch": 305 / 62, "loss": None, "nonfinite_tensors": 3}]
    found = diagnose_run(write_run(tmp_path / "run", course, ["--optimization.weight_decay", "1000"]))
    assert (found.verdict.name, found.verdict.step, found.has_prototypes) == ("divergence", 305, True)
    assert found.causes[0].reason.startswith("optimization.weight_decay: times the learning rate it is up to 4")


def pictures(folder, values):
    (folder / "train").mkdir(parents=True)
    for i, value in enumerate(values):
        Image.fromarray(np.full((8, 8, 3), value, np.uint8)).save(folder / "train" / f"{i}.png")
    return ["--data.train", f"{{HuggingFaceImages: {{path: {folder}}}}}", "--data.test", "null"]


def test_images_that_nothing_can_be_learned_from_are_the_cause(tmp_path):
    changes = pictures(tmp_path / "images", range(80))
    found = diagnose_run(write_run(tmp_path / "ill", rows(400, ill_from=200), changes))
    assert found.verdict.name == "uniform collapse"
    assert [cause.reason for cause in found.causes] == [
        "data.train: 64 of the 64 images looked at are constant, the same at every pixel; check which images it names"
    ]
    found = diagnose_run(write_run(tmp_path / "seemingly well", rows(400), changes))
    assert [verdict.name for verdict in found.course] == ["too early to say", "not learning"]


def test_images_that_are_gone_are_not_looked_for(tmp_path, monkeypatch):
    changes = ["--data.train", "{HuggingFaceImages: {path: owner/name}}", "--data.test", "null"]
    folder = write_run(tmp_path / "run", rows(400, ill_from=200), changes)
    monkeypatch.setattr("sslkit.data.index.open_on_hub", lambda *_: pytest.fail("asked the Hub"))
    assert diagnose_run(folder).causes == []


def test_no_gain_is_told_with_what_may_explain_it(tmp_path):
    networks = [("untrained", 0, 26.6), ("raw-pixels (plain)", 0, 32.6), ("teacher", 300, 31.0)]
    results = [{"network": n, "protocol": "p", "step": step, "metrics": {"t": v}} for n, step, v in networks]
    changes = ["--method.teacher", "{EMA: {momentum: 1.0}}"]
    found = diagnose_run(write_run(tmp_path / "run", rows(300), changes, results))
    assert str(found.verdict) == "no gain shown (t of the teacher is 31.0, that of raw-pixels (plain) 32.6)"
    assert found.causes[0].reason.startswith("method.teacher: 100% of the teacher at the end is its first weights")
