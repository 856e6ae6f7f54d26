"""The doctor on small real runs that were made to fail, and on healthy ones of other lengths, sizes, K and images.

``PYTHONPATH=tests/support python tests/properties/test_forced_failures.py`` runs the failures and prints their table in
docs/doctor.md.
"""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from PIL import Image
from small_runs import run, textures

from sslkit.health.doctor import Diagnosis
from sslkit.recommendation import overrides

DOCS = Path(__file__).parents[2] / "docs" / "doctor.md"

STEPS = 210
"""Of a run: "not learning" is not said before step 200."""

SEED = 31
"""Other than those that bounds were chosen by."""

ANY_COLLAPSE = ("one-dimension collapse", "uniform collapse", "constant embeddings", "dimensional collapse")

HEALTHY_RUNS = 50

WITHOUT_EVALUATION = {"data.test": "null", "evaluation.evaluators": "[]", "evaluation.baselines": "[]"}


@dataclass(frozen=True)
class Failure:
    """A run that is made to fail, and what the doctor has to say of it.

    Args:
        what: is broken, for people.
        method: whose tiny recipe is changed.
        changes: of that recipe, by dotted key.
        verdicts: of which the last one has to be one.
        cause: beginning of the reason of a cause.
        advice: a word of the command to try; empty where only the images could be changed.
        images: "constant" or "repeated" for a folder of such images instead of textures.
        sizes: of the run.
    """

    what: str
    method: str
    changes: Mapping[str, object]
    verdicts: Sequence[str]
    cause: str
    advice: str = ""
    images: str = ""
    sizes: Mapping[str, int] = field(default_factory=dict)


EMA = "--method.teacher EMA"
NO_PREDICTOR = {"method.predictor": "null"}
FAILURES = [
    Failure("no centering", "dino", {"method.collapse.momentum": 1.0}, ["one-dimension collapse"],
            "method.collapse: a center with momentum 1", "--method.collapse.momentum 0.9"),
    Failure("a center with momentum 0.999", "dino", {"method.collapse.momentum": 0.999}, ["one-dimension collapse"],
            "method.collapse: a center with momentum 0.999", "--method.collapse.momentum 0.9"),
    Failure("no sharpening (teacher temperature 0.1)", "dino", {"method.collapse.temperature": 0.1},
            ["uniform collapse", "dimensional collapse"], "method.collapse: the teacher's temperature",
            "--method.collapse.temperature '{Warmup"),
    Failure("`Copy` and `Centering`", "dino", {"method.teacher": "Copy"}, ["not learning", "dimensional collapse"],
            "method.collapse: centering does not keep a student that is its own teacher", EMA),
    Failure("`PreviousStep`", "dino", {"method.teacher": "PreviousStep"}, ["not learning", "dimensional collapse"],
            "method.teacher: a teacher one step behind", EMA),
    Failure("no predictor", "byol", NO_PREDICTOR, ["constant embeddings"],
            "method.loss: without a predictor", "--method.predictor MLPPredictor"),
    Failure("no predictor, no batch norm in the head", "byol", NO_PREDICTOR | {"method.head.batch_norm": "false"},
            ["constant embeddings"], "method.loss: without a predictor", "--method.predictor MLPPredictor"),
    Failure("a head one unit wide", "moco-v2", {"method.head.hidden_dim": 1, "method.head.batch_norm": "true"},
            ["dimensional collapse", "constant embeddings"], "method.head: a layer of hidden_dim 1",
            "--method.head.hidden_dim 64"),
    Failure("learning rate 0", "dino", {"optimization.lr": 0}, ["not learning"], "optimization.lr: 0 at every step",
            "--optimization.lr 0.0002"),
    Failure("learning rate 10 (AdamW)", "dino", {"optimization.lr": 10.0}, ANY_COLLAPSE,
            "optimization.optimizer: a learning rate that peaks at 10", "--optimization.lr 0.0002"),
    Failure("learning rate 1e10 (SGD)", "moco-v2", {"optimization.lr": "1.0e+10", "optimization.optimizer": "SGD"},
            ["divergence"], "optimization.optimizer: a learning rate that peaks at 1e+10", "--optimization.lr 0.1"),
    Failure("weight decay 1000", "dino", {"optimization.weight_decay": 1000}, ["divergence"],
            "optimization.weight_decay: times the learning rate", "--optimization.weight_decay 0.003"),
    Failure("weight decay 1000 (SGD)", "byol",
            {"optimization.weight_decay": 1000, "optimization.optimizer": "SGD"}, ["divergence"],
            "optimization.weight_decay: times the learning rate", "--optimization.weight_decay 0.003"),
    Failure("weight decay 50", "dino", {"optimization.weight_decay": 50}, ANY_COLLAPSE,
            "optimization.weight_decay: times the learning rate", "--optimization.weight_decay 0.003"),
    Failure("teacher momentum 1", "dino", {"method.teacher": "{EMA: {momentum: 1.0}}"}, ["not learning"],
            "method.teacher: 100% of the teacher", "--method.teacher.momentum"),
    Failure("teacher momentum 1", "byol", {"method.teacher": "{EMA: {momentum: 1.0}}"}, ["not learning"],
            "method.teacher: 100% of the teacher", "--method.teacher.momentum"),
    Failure("constant images", "byol", {}, ["not learning"], "data.train: 64 of the 64 images", images="constant"),
    Failure("constant images", "moco-v2", {}, ["constant embeddings", "not learning"],
            "data.train: 64 of the 64 images", images="constant"),
    Failure("one image, repeated", "dino", {}, [*ANY_COLLAPSE, "not learning"],
            "data.train: the 64 images looked at are copies of 1", images="repeated"),
    Failure("one image, repeated", "swav", {}, ["uniform collapse"],
            "data.train: the 64 images looked at are copies of 1", images="repeated"),
    Failure("Sinkhorn with epsilon 5", "swav", {"method.collapse": "{SinkhornKnopp: {epsilon: 5.0}}"},
            ["uniform collapse"], "method.collapse: epsilon 5", "--method.collapse.epsilon 0.05"),
    Failure("student temperature 10", "dino", {"method.loss": "{CrossEntropy: {temperature: 10.0}}"},
            ["uniform collapse", "not learning"], "method.loss: divided by a temperature of 10",
            "--method.loss.temperature 0.1"),
    Failure("temperature 100", "moco-v2", {"method.loss": "{InfoNCE: {temperature: 100.0}}"}, ["not learning"],
            "method.loss: divided by a temperature of 100", "--method.loss.temperature 0.2"),
    Failure("everything frozen", "dino",
            {"optimization.freeze": "{backbone: 99 epochs, projector: 99 epochs, prototypes: 99 epochs}"},
            ["not learning"], "optimization.freeze.backbone lasts as long as the run",
            "--optimization.freeze.backbone"),
    Failure("one prototype", "dino", {}, ["one-dimension collapse"], "method.head: a single prototype",
            "--method.head.num_prototypes 64", sizes={"prototypes": 1}),
]  # fmt: skip


def folder_of_images(place: Path, kind: str) -> Path:
    """Write 128 images of 32 pixels that differ in nothing that is left by augmentation, or in nothing."""
    draws = np.random.default_rng(0)
    noise = draws.integers(0, 256, (32, 32, 3), dtype=np.uint8)
    (place / "train").mkdir(parents=True)
    for i in range(128):
        plain = np.full((32, 32, 3), i, np.uint8)
        Image.fromarray(noise if kind == "repeated" else plain).save(place / "train" / f"{i}.png")
    return place


def diagnosed(failure: Failure, place: Path, seed: int):
    """Return the diagnosis of the run."""
    changes = {**WITHOUT_EVALUATION, **failure.changes, "seed": seed}
    if failure.images:
        path = folder_of_images(place / "images", failure.images)
        changes["data.train"] = f"{{HuggingFaceImages: {{path: {path}}}}}"
    return run(failure.method, place / "run", changes, steps=STEPS, **failure.sizes)


@pytest.mark.long
@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: f"{failure.method}: {failure.what}")
def test_a_forced_failure_gets_its_verdict_cause_and_advice(tmp_path, failure):
    found = diagnosed(failure, tmp_path, SEED)
    print([(verdict.name, verdict.step) for verdict in found.course], found.verdict.reason)
    assert found.verdict.name in failure.verdicts
    assert [cause.reason for cause in found.causes if cause.reason.startswith(failure.cause)]
    words = [word for cause in found.causes for word in overrides(cause.fix)]
    assert not failure.advice or [word for word in words if word.startswith(failure.advice)]


def table_row(failure: Failure, found: Diagnosis) -> str:
    """Return the row of docs/doctor.md on a failure."""
    steps = {verdict.name: verdict.step for verdict in found.course}
    (cause, *_) = (each for each in found.causes if each.reason.startswith(failure.cause))
    changes = " ".join(overrides(cause.fix))
    cells = (failure.method, failure.what, found.verdict.name, str(steps[found.verdict.name]), failure.cause)
    return f"| {' | '.join(cells)} | {f'`{changes}`' if changes else ''} |"


def test_the_table_of_the_docs_has_every_failure_and_what_the_doctor_says_of_it():
    lines = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| ")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    table = {(row[0], row[1]): row[2:] for row in cells if len(row) == 6}
    for failure in FAILURES:
        verdict, _, cause, changes = table[failure.method, failure.what]
        assert verdict in failure.verdicts
        assert cause == failure.cause
        assert failure.advice in changes


def healthy_run(number: int) -> tuple[str, dict, dict]:
    """Return method, changes and sizes of a run that nothing is wrong with, drawn by its number."""
    draw = random.Random(number)
    method = ("dino", "byol", "moco-v2", "swav")[number % 4]
    size, images, seed = draw.choice([16, 24, 32]), draw.choice([500, 1000, 4000]), draw.randrange(1000)
    layout, width = draw.choice(["full", "object"]), draw.choice([16, 24, 32])
    changes = {
        # On objects, and with 2 prototypes, SwAV does end in nearly uniform targets in a network this small.
        "data.train": textures("train", images, seed, "full" if method == "swav" else layout),
        "views.global_size": size,
        "method.backbone": f"{{SmallConvNet: {{width: {width}}}}}",
        "seed": draw.randrange(1000),
        **WITHOUT_EVALUATION,
    }
    prototypes = draw.choice([10, 10, 10, 64, 64] if method == "swav" else [2, 3, 16, 64, 256])
    batch_size, steps = draw.choice([16, 32, 64]), draw.choice([110, 150, 210, 260])
    return method, changes, {"prototypes": prototypes, "batch_size": batch_size, "steps": steps}


@pytest.mark.long
@pytest.mark.parametrize("number", range(HEALTHY_RUNS))
def test_a_healthy_run_raises_no_alarm(tmp_path, number):
    method, changes, sizes = healthy_run(number)
    found = run(method, tmp_path / "run", changes, **sizes)
    course = [(verdict.name, verdict.step, verdict.reason) for verdict in found.course]
    print(method, sizes, changes["data.train"], course)
    assert [each for each in found.course if each.is_failure] == []


if __name__ == "__main__":
    with TemporaryDirectory() as folder:
        for i, each in enumerate(FAILURES):
            print(table_row(each, diagnosed(each, Path(folder) / str(i), SEED)))
