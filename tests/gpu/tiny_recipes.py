"""The four tiny recipes for some steps in each 16-bit precision, beside their first step in fp32."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from io import StringIO
from pathlib import Path

import part
from rich.console import Console

from sslkit.launch import train
from sslkit.recipe import Recipe, load
from sslkit.training.trainer import Trainer

RECIPES = ("dino", "byol", "moco-v2", "swav")

TOLERANCE = 0.05
"""Relative, of the first loss: the same images and weights, rounded to 8 bits."""

SETTLED = 20
"""Steps after which fp16's scaler, which starts at 2**16 and halves with each overflow, has found its scale."""


def train_for(steps: int, method: str, precision: str, device: str, batch_size: int) -> tuple[Recipe, Trainer, list]:
    """Train a tiny recipe on textures and return it, the run and its rows."""
    words = [*part.unmeasured(device, 8 * batch_size, steps), "--optimization.batch_size", str(batch_size)]
    recipe = load(f"{method}-cifar10-tiny", [*words, "--precision", precision, "--runtime.log_every", "5"])
    with tempfile.TemporaryDirectory() as folder:
        run = train(recipe, Path(folder) / "run", console=Console(file=StringIO()))
        return recipe, run, list(run.metrics)


def judge(recipe: Recipe, run: Trainer, rows: Sequence[Mapping[str, float]], exact: float) -> tuple[bool, str]:
    """Return whether losses are finite and start as in fp32, steps count once a scale is found, and weights move."""
    drawn, _ = recipe.build_networks(run.built.seed)
    pairs = zip(drawn.parameters(), run.model.student.backbone.parameters(), strict=True)
    moved = sum(float((after.detach().cpu() - before.detach()).abs().sum()) for before, after in pairs)
    losses = [math.nan if row["loss"] is None else row["loss"] for row in rows]
    skipped, scaled = int(rows[-1]["skipped_steps"]), run.record.precision == "fp16"
    early = next((row["skipped_steps"] for row in rows if scaled and row["step"] >= SETTLED), 0)
    passed = all(map(math.isfinite, [*losses, moved])) and moved > 0 and skipped <= early
    note = f", {skipped} skipped" if skipped else ""
    return passed and abs(
        losses[0] / exact - 1
    ) < TOLERANCE, f"{losses[0]:.3f} (fp32 {exact:.3f}) to {losses[-1]:.3f}{note}"


def main() -> None:
    """Report a check for each recipe and precision."""
    options, report = part.start("recipes")
    steps, batch_size = (40, 128) if options.full else (2, 8)
    for method in RECIPES:
        with report.attempt(f"{method}, fp32"):
            _, _, rows = train_for(1, method, "fp32", options.device, batch_size)
            for precision in ("bf16", "fp16"):
                name = f"{method}, {precision}"
                if precision == "fp16" and options.device == "cpu":
                    report.skip(name, "a CPU has no fp16")
                    continue
                with report.attempt(name):
                    done = train_for(steps, method, precision, options.device, batch_size)
                    report.check(name, *judge(*done, rows[0]["loss"]))


if __name__ == "__main__":
    main()
