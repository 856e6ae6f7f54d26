"""A run folder is examined as it lies there: finished or not, with or without what its recipe needs."""

import pytest
from folders_of_runs import rows, write_run

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


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("results.json", "[1"),
        ("results.json", "{}"),
        ("metrics.jsonl", '{"step": 1, "epoch": 1, "loss": "a"}'),
        ("metrics.jsonl", '{"step": 2, "epoch": 0}'),
        ("metrics.jsonl", '{"step": 2}'),
        ("metrics.jsonl", "\x00"),
    ],
)
def test_damaged_files_are_a_sentence(tmp_path, file, content):
    folder = write_run(tmp_path / "run", rows(300))
    (folder / file).write_text(content)
    with pytest.raises(SSLKitError, match=file):
        diagnose_run(folder)
