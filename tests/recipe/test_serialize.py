"""A resolved recipe, written and read again."""

from pathlib import Path

import pytest
import yaml

from sslkit.clock import Clock
from sslkit.recipe import load
from sslkit.schedules import Cosine

BASE = Path(__file__).with_name("tiny.yaml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["--method.predictor", "TinyPredictor", "--optimization.lr", "{Cosine: {start: 1e-4, end: 0}}"],
        ["--method.student_views", "[0]", "--method.teacher_views", "[1]", "--data.test", "null"],
        [
            "--evaluation.evaluators",
            "[{TinyEvaluator: {k: 3, word: [a]}}]",
            "--optimization.freeze.backbone",
            "3 steps",
        ],
    ],
)
def test_a_resolved_recipe_is_the_same_recipe(overrides, base, write):
    recipe = base(*overrides)
    again = load(write(recipe.to_yaml(), "again.yaml"))
    assert again.resolved == recipe.resolved
    assert again.to_yaml() == recipe.to_yaml()
    assert again.identity() == recipe.identity()
    assert again.name == "some"


def test_a_resolved_recipe_holds_every_default_and_no_link(base):
    values = yaml.safe_load(base().to_yaml())
    assert values["method"]["loss"] == {"TinyLoss": {"temperature": 0.1}}
    assert values["method"]["backbone"] == {"TinyBackbone": {"width": 6, "patch_size": 4}}
    assert values["method"]["head"] == {"TinyHead": {"num_prototypes": 16, "embed_dim": 4}}
    assert values["views"]["TinyViews"]["scale"] == [0.4, 1.0]
    assert values["runtime"]["log_every"] == 10


def test_a_default_that_is_a_schedule_is_written(base, write):
    recipe = load(write(BASE.replace("{TinyTeacher: {momentum: {Cosine: {start: 0.9, end: 1}}}}", "TinyTeacher")))
    momentum = recipe.resolved["method"]["teacher"]["TinyTeacher"]["momentum"]
    assert momentum["Cosine"] == {"start": 0.9, "end": 1.0, "warmup": "0 steps", "warmup_from": 0.0, "every": "step"}
    again = load(write(recipe.to_yaml())).build().method.teacher.momentum
    assert again(Clock(3, 10)) == Cosine(0.9, 1.0)(Clock(3, 10))


def test_jsonargparse_form_is_understood(base, write):
    text = BASE.replace("{TinyBackbone: {width: 6}}", "{class_path: TinyBackbone, init_args: {width: 6}}")
    assert load(write(text)).resolved == base().resolved


def test_a_name_can_be_written(write):
    assert load(write("name: my-run\n" + BASE)).name == "my-run"
