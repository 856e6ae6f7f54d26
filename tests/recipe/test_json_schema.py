"""The schema accepts what the loader accepts and refuses what it refuses, in every form that a file may have.

Left to the loader: keys that are missing (a base may have them), bounds of numbers, durations, sizes that have to fit
one another, and the arguments of classes written by their path. The loader also reads numbers in quotes.
"""

import json
from pathlib import Path

import pytest
import yaml
from jsonschema import Draft7Validator

from sslkit.errors import SSLKitError
from sslkit.hookspecs import KINDS
from sslkit.plugins import active
from sslkit.recipe import load
from sslkit.recipe.files import builtin_recipes, read_yaml
from sslkit.recipe.json_schema import json_schema


@pytest.fixture(scope="module")
def validator(_tiny_parts_of_the_module):
    return Draft7Validator(json_schema(active().registry))


@pytest.fixture(scope="module")
def _tiny_parts_of_the_module():
    from sslkit import plugins

    with plugins.using([Path(__file__).parents[1] / "tiny_parts.py"]):
        yield


def changed(base, changes):
    """Return the tiny recipe as plain data with the values of dotted keys changed; ``...`` removes one."""
    values = yaml.safe_load(base)
    for key, value in changes.items():
        *path, last = key.split(".")
        place = values
        for part in path:
            place = place.setdefault(part, {})
        if value is ...:
            del place[last]
        else:
            place[last] = value
    return values


@pytest.fixture
def both(validator, write):
    """Return a function that gives whether loader and schema accept the tiny recipe with these changes."""
    base = Path(__file__).with_name("tiny.yaml").read_text(encoding="utf-8")

    def both(changes):
        values = changed(base, changes)
        file = write(yaml.safe_dump(values, sort_keys=False))
        try:
            load(file)
        except SSLKitError:
            loads = False
        else:
            loads = True
        return loads, validator.is_valid(read_yaml(file))

    return both


def test_it_is_a_schema(validator):
    Draft7Validator.check_schema(validator.schema)
    assert json.loads(json.dumps(validator.schema)) == validator.schema


def references(schema):
    if isinstance(schema, dict):
        yield from ([schema["$ref"]] if "$ref" in schema else [])
        for value in schema.values():
            yield from references(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from references(value)


def test_every_reference_is_defined_and_every_definition_is_used(validator):
    used = {reference.rpartition("/")[2].replace("%20", " ") for reference in references(validator.schema)}
    assert used == {*validator.schema["definitions"]}


@pytest.mark.parametrize("name", builtin_recipes())
def test_every_recipe_that_ships_is_valid_and_so_is_what_it_resolves_to(validator, name):
    assert [*validator.iter_errors(read_yaml(builtin_recipes()[name]))] == []
    assert [*validator.iter_errors(yaml.safe_load(load(name).to_yaml()))] == []


def test_every_registered_component_of_a_recipe_is_there(validator):
    definitions = validator.schema["definitions"]
    for kind in KINDS:
        for name in active().registry.names(kind.hook):
            assert f"{kind.hook}.{name}" in definitions
    assert "collapse_operators.DistributionAlignment" in definitions  # an installed plugin's
    assert "collapse_operators.TinyOperator" in definitions  # a plugin file's


def test_docstrings_and_defaults_are_what_an_editor_shows(validator):
    arguments = validator.schema["definitions"]["collapse_operators.SinkhornKnopp"]["properties"]
    assert arguments["num_iters"] == {
        "description": "alternating scalings of prototypes and images, at least 1 (3 in the paper).",
        "type": "integer",
        "default": 3,
    }
    assert arguments["embed_dim"]["anyOf"] == [{"type": "integer"}, {"type": "null"}]
    assert "reads its rows" not in json.dumps(arguments)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"$schema": "recipe.schema.json", "name": "mine", "seed": 3},
        {"method.collapse": "TinyOperator", "method.loss": {"TinyLoss": None}, "method.predictor": None},
        {"method.collapse": None},
        {"method.head": {"class_path": "TinyHead", "init_args": {}}},
        {"method.head": {"class_path": "TinyHead"}},
        {"method.teacher": "EMA"},
        {"method.teacher": {"EMA": {"momentum": 0.5}}},
        {"method.teacher": {"EMA": {"momentum": {"Cosine": {"start": 0.9, "end": 1}}}}},
        {"method.teacher": "sslkit.teachers.ema.EMA"},
        {"method.teacher": {"sslkit.teachers.ema.EMA": {"momentum": 1}}},
        {"method.teacher": {"sslkit.teachers.ema:EMA": {"momentum": 1}}},
        {"method.student_views": [0, 1], "method.teacher_views": "all"},
        {"method.batch_norm": 32},
        {"method.batch_norm": "local"},
        {"method.init_from": "timm:resnet18"},
        {"method.init_from": {"weights": "run", "network": "student", "partial": ["blocks.11"], "heads": True}},
        {"data.test": None, "data.value_range": [0, 1], "data.num_images": 10},
        {"optimization.lr": {"Cosine": {"start": 0.1, "end": 0, "warmup": "1 epochs"}}},
        {"optimization.freeze": {"prototypes": "1 epochs", "backbone": None}},
        {"optimization.lr_scale": {"backbone": 0.1}, "optimization.clip_per": "all"},
        {"optimization.weight_decay": 0},
        {"runtime.trackers": ["tensorboard", {"wandb": {"project": "mine", "tags": [1]}}]},
        {"runtime.callbacks": ["SummaryPicture", {"SummaryPicture": {"metric": "loss"}}]},
        {"evaluation.evaluators": [{"KNN": {"k": [1, 2], "temperature": 1}}, "KNN"]},
        {"evaluation.networks": ["teacher"], "evaluation.every": None},
        {"precision": "bf16", "runtime.compile": True, "runtime.threads": None},
    ],
)
def test_both_accept(both, changes):
    assert both(changes) == (True, True)


@pytest.mark.parametrize(
    "changes",
    [
        {"metod": {}},
        {"$schema": 3},
        {"method": []},
        {"method.techer": "EMA"},
        {"method.teacher": "EMM"},
        {"method.teacher": None},
        {"method.teacher": 3},
        {"method.teacher": {"EMA": {"momentun": 0.5}}},
        {"method.teacher": {"EMA": {"momentum": "high"}}},
        {"method.teacher": {"EMA": {"momentum": {"Cosin": {"start": 0.9, "end": 1}}}}},
        {"method.teacher": {"EMA": {"momentum": {"Cosine": {"start": 0.9, "stop": 1}}}}},
        {"method.teacher": {"EMA": {}, "Copy": {}}},
        {"method.teacher": {"EMA": 0.5}},
        {"method.teacher": ["EMA"]},
        {"method.loss": "EMA"},
        {"method.init": "copied"},
        {"method.student_views": "local"},
        {"method.student_views": ["a"]},
        {"method.separate_views": "maybe"},
        {"method.batch_norm": "none"},
        {"method.init_from": {"weight": "run"}},
        {"method.init_from": 3},
        {"data.mean": "0.5"},
        {"data.channels": 1.5},
        {"data.train": {"HuggingFaceImages": {"pth": "x"}}},
        {"optimization.batch_size": "many"},
        {"optimization.epochs": True},
        {"optimization.freeze": {"prototype": "1 epochs"}},
        {"optimization.clip_per": "each"},
        {"optimization.optimizer": {"AdamW": {"betas": [0.9]}}},
        {"runtime.callbacks": [{"metric": "loss"}]},
        {"runtime.callbacks": "SummaryPicture"},
        {"runtime.on_collapse": "die"},
        {"runtime.$schema": "x"},
        {"evaluation.evaluators": ["KN"]},
        {"evaluation.networks": ["pupil"]},
        {"precision": "fp8"},
        {"seed": "one"},
    ],
)
def test_both_refuse(both, changes):
    assert both(changes) == (False, False)


def test_over_a_base_a_component_may_be_its_arguments_alone(validator, write):
    write()
    warmup = "{Warmup: {start: 1, end: 2, over: 1 epochs}}"
    method = f"{{teacher: {{momentum: 0.5}}, collapse: {{temperature: {warmup}}}}}"
    file = write(f"base: some.yaml\nmethod: {method}\ndata: {{train: {{num_images: 32}}}}\n", "over.yaml")
    assert load(file).root.at("method.teacher.momentum") == 0.5
    assert validator.is_valid(read_yaml(file))
    typo = write("base: some.yaml\nmethod: {teacher: {momentun: 0.5}}\n", "typo.yaml")
    assert not validator.is_valid(read_yaml(typo))
    for base in ("dino-vit-small", "other.yaml"):
        assert validator.is_valid({"base": base})
    for base in ("dino-vit-smal", "other.txt", 3):
        assert not validator.is_valid({"base": base})


def test_images_may_be_one_folder(validator):
    assert validator.is_valid({"base": "quickstart", "data": "~/photos"})
    assert not validator.is_valid({"base": "quickstart", "data": 3})


def test_a_schema_key_changes_neither_recipe_nor_identity(write):
    base = Path(__file__).with_name("tiny.yaml").read_text(encoding="utf-8")
    with_key = load(write(f"$schema: ./recipe.schema.json\n{base}"))
    without = load(write(base))
    assert with_key.to_yaml() == without.to_yaml()
    assert with_key.identity() == without.identity()
