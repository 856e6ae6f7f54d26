"""A run folder is examined as it lies there: finished or not, with or without what its recipe needs."""

import json
import math
from pathlib import Path

import pytest

from sslkit.errors import SSLKitError
from sslkit.health.doctor import diagnose_run
from sslkit.health.figure import draw, save
from sslkit.recipe import load

K = 16


def write_run(folder: Path, rows, overrides=(), results=()):
    folder.mkdir()
    (folder / "recipe.yaml").write_text(load("quickstart", list(overrides)).to_yaml())
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "results.json").write_text(json.dumps(list(results)))
    return folder


def rows(until, ill_from=10**9, **numbers):
    """Rows of a run with 62 steps an epoch, whose targets are uniform from a step on."""
    sharp = {"target_entropy": 1.0, "target_kl": 0.2}
    flat = {"target_entropy": math.log(K), "target_kl": 1e-4}
    always = {"loss": 1.2, "marginal_entropy": math.log(K), "prototype_use": 1.0, "image_cosine": 0.5}
    return [
        {"step": step, "epoch": step / 62, **always, **(flat if step >= ill_from else sharp), **numbers}
        for step in range(10, until + 1, 10)
    ]


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


def test_the_figure_shows_every_run_and_the_moment_of_a_verdict(tmp_path):
    ill = diagnose_run(write_run(tmp_path / "ill", rows(400, ill_from=100)))
    well = diagnose_run(write_run(tmp_path / "well", rows(200)))
    entropy, kl = draw([ill, well]).axes
    assert entropy.get_title().startswith("entropy")
    assert kl.get_title().startswith("KL")
    curves = [line for line in kl.get_lines() if len(line.get_xdata()) > 2]
    assert [len(line.get_xdata()) for line in curves] == [40, 20]
    (moment,) = (line for line in kl.get_lines() if len(line.get_xdata()) == 2)
    assert moment.get_xdata()[0] == pytest.approx(ill.verdict.step / 62)
    (level,) = (line for line in entropy.get_lines() if line.get_linestyle() == "--")
    assert level.get_ydata()[0] == pytest.approx(math.log(K), abs=0.01)


def test_runs_without_prototypes_are_drawn_by_their_embeddings(tmp_path):
    byol = [{"step": 10.0, "epoch": 0.1, "loss": 1.0, "image_cosine": 0.2, "embedding_directions": 3.0}]
    found = [diagnose_run(write_run(tmp_path / "byol", byol)), diagnose_run(write_run(tmp_path / "dino", rows(100)))]
    assert [axis.get_title()[:6] for axis in draw(found).axes] == ["cosine", "direct"]


def test_a_figure_is_written_or_refused_with_the_choices(tmp_path):
    found = [diagnose_run(write_run(tmp_path / "run", rows(100)))]
    assert save(found, tmp_path / "a.svg").stat().st_size > 1000
    with pytest.raises(SSLKitError, match=r"a\.bmp: it can be \.png, \.svg, \.pdf, such as .*a\.png"):
        save(found, tmp_path / "a.bmp")
    with pytest.raises(SSLKitError, match="there is no folder"):
        save(found, tmp_path / "no" / "a.png")
