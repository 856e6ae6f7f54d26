"""Sections of a recipe and what their keys undo."""

from pathlib import Path

import pytest

from sslkit.clock import Duration
from sslkit.recipe import load

BASE = Path(__file__).with_name("tiny.yaml").read_text(encoding="utf-8")


def test_an_overlay_undoes_what_its_base_freezes(write):
    write(BASE.replace("lr: 1e-3}", "lr: 1e-3, freeze: {prototypes: 1 epochs, backbone: 3 steps}}"), "frozen.yaml")
    recipe = load(write("base: ./frozen.yaml\noptimization: {freeze: {prototypes: null}}\n", "thawed.yaml"))
    optimization = recipe.build().optimization
    assert optimization.freezes == {"backbone": Duration(3, "steps")}
    again = load(write(recipe.to_yaml(), "again.yaml"))
    assert again.resolved["optimization"]["freeze"] == {"prototypes": None, "backbone": "3 steps"}
    assert again.identity() == recipe.identity()


@pytest.mark.parametrize("value", ["synchronized", "local", 4])
def test_batch_norm_is_a_word_or_a_number(base, write, value):
    recipe = base("--method.batch_norm", str(value))
    assert recipe.build().method.batch_norm == value
    assert load(write(recipe.to_yaml(), "again.yaml")).build().method.batch_norm == value
    assert (recipe.identity() == base().identity()) == (value == "synchronized")
