"""Folders of runs, written without a run."""

import json
import math
from pathlib import Path

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
