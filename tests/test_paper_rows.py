"""Every row of the DINO paper's tables 7, 14 and 15 and of figure 6 (arXiv:2104.14294) is a set of overrides."""

import json
from collections.abc import Mapping
from functools import reduce
from pathlib import Path
from typing import Any

import pytest
import torch

from sslkit import plugins
from sslkit.clock import Clock
from sslkit.errors import RecipeError, UnknownName
from sslkit.method.step import train_step
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates
from sslkit.recipe import load
from sslkit.recipe.files import read_yaml
from sslkit.recipe.layers import merge, override
from sslkit.recipe.model import build_model
from sslkit.recipe.validation import validate
from sslkit.types import Views

HERE = Path(__file__).parent
STUDY = read_yaml(HERE / "paper_rows.yaml")
ROWS = [(table, row) for table, rows in STUDY["tables"].items() for row in rows]
SHRUNK = {
    "method.backbone": "TinyBackbone",
    "method.head.hidden_dim": 8,
    "method.head.embed_dim": 4,
    "method.head.num_prototypes": 8,
    "views.global_size": 8,
    "views.local_size": 4,
    "data.train": {"TinyImages": {"num_images": 8}},
    "data.test": None,
    "optimization.batch_size": 4,
}

# What the paper prints of each row, and the recipe that is the same, where there is one: teacher, operator, loss,
# local views, batch norm in the head, predictor.
DINO = ("EMA", "Centering", "CrossEntropy", 10, False, False)
PRINTED = {
    "table-07": {
        "1": (DINO, "dino-vit-small"),
        "2": (("Copy", "Centering", "CrossEntropy", 10, False, False), None),
        "3": (("EMA", "SinkhornKnopp", "CrossEntropy", 10, False, False), None),
        "4": (("EMA", "Centering", "CrossEntropy", 0, False, False), "dino-vit-small-no-local"),
        "5": (("EMA", "Centering", "MSE", 10, False, False), None),
        "6": (("EMA", "Centering", "CrossEntropy", 10, False, True), None),
        "7": (("EMA", None, "MSE", 0, True, True), "byol-vit-small"),
        "8": (("EMA", "NegativeQueue", "InfoNCE", 0, True, False), "moco-v2-vit-small"),
        "9": (("Copy", "SinkhornKnopp", "CrossEntropy", 6, False, False), "swav-vit-small"),
    },
    "table-14": {
        "1": (DINO, "dino-vit-small"),
        "2": (("EMA", "Centering", "MSE", 10, False, False), None),
        "3": (("EMA", "Centering", "CrossEntropy", 10, False, True), None),
        "4": (("EMA", "Centering", "CrossEntropy", 0, False, False), "dino-vit-small-no-local"),
        "5": (("EMA", "NegativeQueue", "InfoNCE", 0, True, False), "moco-v2-vit-small"),
        "6": (("EMA", "NegativeQueue", "InfoNCE", 6, True, False), "moco-v2-vit-small-6-local"),
        "7": (("EMA", None, "MSE", 0, True, True), "byol-vit-small"),
        "8": (("EMA", None, "MSE", 0, True, False), None),
        "9": (("EMA", "Centering", "MSE", 0, False, False), None),
        "10": (("EMA", None, "MSE", 6, True, True), "byol-vit-small-6-local"),
    },
    "table-15": {
        "1": (DINO, "dino-vit-small"),
        "2": (("EMA", "BatchSoftmax", "CrossEntropy", 10, False, False), None),
        "3": (("EMA", "SinkhornKnopp", "CrossEntropy", 10, False, False), None),
        "4": (("Copy", "Centering", "CrossEntropy", 10, False, False), None),
        "5": (("Copy", "BatchSoftmax", "CrossEntropy", 10, False, False), None),
        "6": (("Copy", "SinkhornKnopp", "CrossEntropy", 6, False, False), "swav-vit-small"),
    },
    "figure-06": {
        "ema": (DINO, "dino-vit-small"),
        "previous_epoch": (("PreviousEpoch", *DINO[1:]), None),
        "previous_step": (("PreviousStep", *DINO[1:]), None),
        "copy": (("Copy", *DINO[1:]), None),
    },
}


def overrides_of(name: str, rows: Mapping[str, Mapping[str, Any]], below: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return a row's overrides: those of the rows that it is ``like``, the later over the earlier, under its own.

    Args:
        name: of the row.
        rows: by name; a row maps dotted keys of a recipe to values, and ``like`` to one name or several.
        below: the rows that led to this one.

    Raises:
        UnknownName: a row is like one that does not exist.
        RecipeError: rows are like one another in a circle.
    """
    if name in below:
        raise RecipeError(f"like: these rows start from one another in a circle: {' -> '.join([*below, name])}")
    if name not in rows:
        raise UnknownName("row", name, rows, where=f"{below[-1]}.like" if below else "")
    like = rows[name].get("like", [])
    lower = [overrides_of(other, rows, (*below, name)) for other in ([like] if isinstance(like, str) else like)]
    own = [override(key, value).values for key, value in rows[name].items() if key != "like"]
    return reduce(merge, [*lower, *own], {})


def row_of(table, row, **first):
    """Return the base with some overrides and then the row's."""
    overrides = [*first.items(), *overrides_of(STUDY["tables"][table][row], STUDY["rows"]).items()]
    return load(STUDY["base"], [word for key, value in overrides for word in (f"--{key}", json.dumps(value))])


def test_a_row_starts_from_those_it_is_like():
    rows = {
        "plain": {"method.loss": {"MSE": {"p": 1}}, "method.teacher": "Copy", "seed": 1},
        "other": {"like": "plain", "method.teacher": {"EMA": {"momentum": 0.5}}, "seed": 2},
        "same": {"method.loss": {"MSE": {"q": 2}}, "method.teacher": {"EMA": {"every": 3}}, "views.sizes": [4]},
        "last": {"like": ["other", "same"], "method.loss.p": 5, "views": {"sizes": [6], "crop_on": "device"}},
    }
    assert overrides_of("plain", rows) == {
        "method": {"loss": {"MSE": {"p": 1}}, "teacher": "Copy"},
        "seed": 1,
    }
    assert overrides_of("other", rows) == {
        "method": {"loss": {"MSE": {"p": 1}}, "teacher": {"EMA": {"momentum": 0.5}}},
        "seed": 2,
    }
    assert overrides_of("last", rows) == {
        "method": {"loss": {"MSE": {"p": 5, "q": 2}}, "teacher": {"EMA": {"momentum": 0.5, "every": 3}}},
        "seed": 2,
        "views": {"sizes": [6], "crop_on": "device"},
    }
    rows["last"]["like"].reverse()
    assert overrides_of("last", rows)["method"]["teacher"] == {"EMA": {"every": 3, "momentum": 0.5}}


def test_rows_that_are_like_nothing_or_one_another_are_refused():
    rows = {"a": {"like": "b"}, "b": {"like": ["free", "c"]}, "c": {"like": "a"}, "free": {}, "lost": {"like": "fre"}}
    with pytest.raises(RecipeError, match=r"circle: a -> b -> c -> a$"):
        overrides_of("a", rows)
    with pytest.raises(UnknownName, match=r"^lost\.like: unknown row 'fre'. Did you mean 'free'\? Choices: a, b, "):
        overrides_of("lost", rows)
    with pytest.raises(UnknownName, match=r"^unknown row 'd'"):
        overrides_of("d", rows)


def test_every_printed_row_is_there():
    tables = STUDY["tables"]
    assert {table: set(rows) for table, rows in tables.items()} == {t: set(rows) for t, rows in PRINTED.items()}
    assert [len(rows) for rows in tables.values()] == [9, 10, 6, 4]
    shared = {"six_local_views", "no_prototypes"}
    assert {name for rows in tables.values() for name in rows.values()} | shared == set(STUDY["rows"])


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_a_row_is_what_the_paper_prints_and_takes_a_step(table, row):
    with plugins.using([HERE / "tiny_parts.py"]):
        parts = row_of(table, row, **SHRUNK).build()
    method = parts.method
    names = [None if part is None else type(part).__name__ for part in (method.teacher, method.collapse, method.loss)]
    norms = [module for module in method.head.modules() if isinstance(module, torch.nn.BatchNorm1d)]
    num_local = len(parts.views.sizes) - parts.views.num_globals
    printed, _ = PRINTED[table][row]
    assert (*names, num_local, bool(norms), method.predictor is not None) == printed
    assert (method.head.prototypes is None) == (names[1] in (None, "NegativeQueue"))

    model = build_model(method, None, torch.device("cpu"))
    validate(parts.method, parts.views, parts.optimization, parts.runtime)
    optimizer = parts.optimization.optimizer.build(parameter_groups(model.student))
    set_rates(optimizer, 0.01, 0.1)
    before = [p.detach().clone() for p in model.student.parameters()]
    views = Views.of([torch.randn(4, 3, size, size) for size in parts.views.sizes])
    output = train_step(model, views, optimizer, Clock(0, 4, 2), frozen=parts.optimization.freezes)
    assert output.loss.isfinite()
    assert any(not torch.equal(p, old) for p, old in zip(model.student.parameters(), before, strict=True))


@pytest.mark.parametrize(("table", "row"), ROWS)
def test_a_row_loads_on_the_real_recipe_and_is_the_recipe_of_that_name(table, row):
    recipe, (_, same) = row_of(table, row), PRINTED[table][row]
    assert recipe.root.at("method.backbone.name") == "vit_small_patch16_224"
    if same:
        assert recipe.resolved["method"] == load(same).resolved["method"]
        assert recipe.identity() == load(same).identity()
