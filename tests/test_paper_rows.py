"""Every row of the DINO paper's tables 7, 14 and 15 and of figure 6 (arXiv:2104.14294) is a set of overrides."""

import json
from pathlib import Path

import pytest
import torch
import yaml

from sslkit import plugins
from sslkit.clock import Clock
from sslkit.recipe import load
from sslkit.training.optimizers import parameter_groups, set_rates
from sslkit.training.setup import build_model, check_step
from sslkit.training.step import train_step
from sslkit.types import Views

HERE = Path(__file__).parent
STUDY = yaml.safe_load((HERE / "paper_rows.yaml").read_text(encoding="utf-8"))
ROWS = [(table, row) for table, rows in STUDY["rows"].items() for row in rows]
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
        1: (DINO, "dino-vit-small"),
        2: (("Copy", "Centering", "CrossEntropy", 10, False, False), None),
        3: (("EMA", "SinkhornKnopp", "CrossEntropy", 10, False, False), None),
        4: (("EMA", "Centering", "CrossEntropy", 0, False, False), "dino-vit-small-no-local"),
        5: (("EMA", "Centering", "MSE", 10, False, False), None),
        6: (("EMA", "Centering", "CrossEntropy", 10, False, True), None),
        7: (("EMA", None, "MSE", 0, True, True), "byol-vit-small"),
        8: (("EMA", "NegativeQueue", "InfoNCE", 0, True, False), "moco-v2-vit-small"),
        9: (("Copy", "SinkhornKnopp", "CrossEntropy", 6, False, False), "swav-vit-small"),
    },
    "table-14": {
        1: (DINO, "dino-vit-small"),
        2: (("EMA", "Centering", "MSE", 10, False, False), None),
        3: (("EMA", "Centering", "CrossEntropy", 10, False, True), None),
        4: (("EMA", "Centering", "CrossEntropy", 0, False, False), "dino-vit-small-no-local"),
        5: (("EMA", "NegativeQueue", "InfoNCE", 0, True, False), "moco-v2-vit-small"),
        6: (("EMA", "NegativeQueue", "InfoNCE", 6, True, False), "moco-v2-vit-small-6-local"),
        7: (("EMA", None, "MSE", 0, True, True), "byol-vit-small"),
        8: (("EMA", None, "MSE", 0, True, False), None),
        9: (("EMA", "Centering", "MSE", 0, False, False), None),
        10: (("EMA", None, "MSE", 6, True, True), "byol-vit-small-6-local"),
    },
    "table-15": {
        1: (DINO, "dino-vit-small"),
        2: (("EMA", "BatchSoftmax", "CrossEntropy", 10, False, False), None),
        3: (("EMA", "SinkhornKnopp", "CrossEntropy", 10, False, False), None),
        4: (("Copy", "Centering", "CrossEntropy", 10, False, False), None),
        5: (("Copy", "BatchSoftmax", "CrossEntropy", 10, False, False), None),
        6: (("Copy", "SinkhornKnopp", "CrossEntropy", 6, False, False), "swav-vit-small"),
    },
    "figure-06": {
        "ema": (DINO, "dino-vit-small"),
        "previous_epoch": (("PreviousEpoch", *DINO[1:]), None),
        "previous_step": (("PreviousStep", *DINO[1:]), None),
        "copy": (("Copy", *DINO[1:]), None),
    },
}


def row_of(table, row, **first):
    """Return the base with some overrides and then the row's."""
    overrides = [*first.items(), *STUDY["rows"][table][row].items()]
    return load(STUDY["base"], [word for key, value in overrides for word in (f"--{key}", json.dumps(value))])


def test_every_printed_row_is_there():
    assert {table: set(rows) for table, rows in STUDY["rows"].items()} == {t: set(rows) for t, rows in PRINTED.items()}
    assert [len(rows) for rows in STUDY["rows"].values()] == [9, 10, 6, 4]


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
    check_step(parts, model)
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
