"""Scheduled numbers at three moments, and durations in steps and epochs."""

import pytest

from sslkit.clock import Clock
from sslkit.explain.recommendations import run_context
from sslkit.explain.schedules import component_descriptions, duration_rows, schedule_rows
from sslkit.recipe import load

WORDS = ["--optimization.epochs", "10", "--optimization.batch_size", "8", "--data.train.num_images", "80"]
WORDS += ["--data.test.num_images", "8"]
LR = ["--optimization.lr", "{Cosine: {start: 0.1, end: 0, warmup: 2 epochs}}"]


@pytest.fixture(scope="module")
def explained():
    recipe = load("quickstart", [*WORDS, *LR, "--optimization.lr_reference_batch", "null"])
    builder = recipe.builder()
    return recipe, builder, run_context(builder, 80)


def test_schedules_are_shown_first_in_the_middle_and_last(explained):
    _, builder, context = explained
    clock = Clock(0, 100, 10)
    rows = {name: values for name, *values in schedule_rows(builder, clock, {})}
    plan = builder.build("optimization")
    moments = [plan.learning_rate(clock.at(step)) for step in (0, 50, 99)]
    assert rows["learning_rate"] == [f"{value:.4g}" for value in moments]
    assert rows["weight_decay"] == ["0.04"] * 3
    assert rows["teacher_momentum"][0] == "0.96"
    assert "center_norm" not in rows or rows["center_norm"]
    assert context.clock.total_steps == 100


def test_descriptions_are_rows_where_they_change(explained):
    _, builder, context = explained
    descriptions = component_descriptions(builder, context)
    assert {len(phrases) for phrases in descriptions.values()} == {3}
    names = [row[0] for row in schedule_rows(builder, context.clock, descriptions)]
    assert "teacher half-life" in names
    constant = {"the same": ["a", "a", "a"], "another": ["a", "a", "b"]}
    rows = schedule_rows(builder, context.clock, constant)
    assert rows[-1] == ["another", "a", "a", "b"]
    assert "the same" not in [row[0] for row in rows]


def test_durations_are_in_steps_and_in_epochs(explained):
    recipe, _, context = explained
    rows = {key: rest for key, *rest in duration_rows(recipe, context.clock)}
    assert rows["optimization.lr.warmup"] == ["20", "2", ""]
    assert rows["optimization.freeze.prototypes"] == ["10", "1", ""]
    assert rows["runtime.checkpoint_every"] == ["50", "5", ""]


def test_one_that_is_longer_than_the_run_says_so():
    recipe = load("quickstart", [*WORDS, "--optimization.freeze.prototypes", "11 epochs"])
    rows = {key: rest for key, *rest in duration_rows(recipe, Clock(0, 100, 10))}
    assert rows["optimization.freeze.prototypes"] == ["110", "11", "longer than the run"]
