"""Layers of a recipe, and the one rule that merges them."""

import pytest

from sslkit.errors import RecipeError
from sslkit.recipe import load
from sslkit.recipe.layers import merge, read_overrides


def test_a_path_of_any_bytes_is_an_override():
    [layer] = read_overrides(["--data", "/data/caf\udce9"])
    assert layer.values == {"data": "/data/caf\udce9"}


@pytest.mark.parametrize(
    ("lower", "upper", "merged"),
    [
        (1, 2, 2),
        ([1, 2], [3], [3]),
        ({"a": 1, "b": 2}, {"b": 3}, {"a": 1, "b": 3}),
        ({"EMA": {"m": 1, "n": 2}}, {"EMA": {"m": 3}}, {"EMA": {"m": 3, "n": 2}}),
        ({"EMA": {"m": 1}}, "EMA", {"EMA": {"m": 1}}),
        ("EMA", {"EMA": {"m": 1}}, {"EMA": {"m": 1}}),
        ({"EMA": {"m": 1}}, {"Copy": None}, {"Copy": None}),
        ({"EMA": {"m": 1}}, "Copy", "Copy"),
        ({"EMA": {"m": 1}}, None, None),
        ({"EMA": {"m": 1}}, {"m": 3}, {"EMA": {"m": 3}}),
        ("EMA", {"m": 3}, {"EMA": {"m": 3}}),
        ({"EMA": None}, {"m": 3}, {"EMA": {"m": 3}}),
        (
            {"EMA": {"m": {"Cosine": {"start": 1, "end": 2}}}},
            {"m": {"start": 0}},
            {"EMA": {"m": {"Cosine": {"start": 0, "end": 2}}}},
        ),
        ({"EMA": {"m": 1}}, {"class_path": "EMA", "init_args": {"n": 2}}, {"EMA": {"m": 1, "n": 2}}),
        ({"EMA": {"m": 1}}, {"a.b.EMA": {"n": 2}}, {"a.b.EMA": {"m": 1, "n": 2}}),
        ({"a": {"b": 1}}, {"a": 3}, {"a": 3}),
        (3, {"Cosine": {"start": 1}}, {"Cosine": {"start": 1}}),
        ("Photos", "Photos", "Photos"),  # a folder, or a class without arguments, of which the same is said
        ("a.EMA", "EMA", "EMA"),
    ],
)
def test_one_rule_merges(lower, upper, merged):
    assert merge(lower, upper) == merged


def test_overrides_are_yaml():
    layers = read_overrides(["--a.b", "1e-3", "--c=true", "--d", "[1, no]", "--e", "-1", "--f", "{X: {y: 2}}", "--g="])
    values = [layer.values for layer in layers]
    assert values == [
        {"a": {"b": 0.001}},
        {"c": True},
        {"d": [1, "no"]},
        {"e": -1},
        {"f": {"X": {"y": 2}}},
        {"g": None},
    ]


@pytest.mark.parametrize("words", [["a", "1"], ["--a"], ["--a", "--b", "1"], ["--a", "{b"], ["--"]])
def test_words_that_are_no_override_are_refused(words):
    with pytest.raises(RecipeError):
        read_overrides(words)


def test_data_in_short_moves_train_and_test(base):
    parts = base("--data.num_images", "64", "--data", "there").build()
    assert parts.data.train.path == parts.data.test.path == "there"
    assert parts.data.num_images is None
    again = base("--data", "there", "--data.test.path", "elsewhere", "--data", "here").build()
    assert (again.data.train.path, again.data.test.path) == ("here", "elsewhere")


def test_data_in_short_moves_a_resolved_recipe(base, write):
    resolved = write(base().to_yaml(), "resolved.yaml")
    parts = load(resolved, ["--data", "there"]).build()
    assert parts.data.train.path == parts.data.test.path == "there"
