"""`dino-cifar10-vit` on a folder of images for as many steps as fit, with k-NN before and after.

A short run measures the untrained network and how long a step and a measurement take; the run proper then has as many
steps as the time left allows, with the recipe's schedules over their whole length.
"""

import os
import statistics
import sys
import tempfile
import time
from io import StringIO
from pathlib import Path

import part
from rich.console import Console

from sslkit.launch import train
from sslkit.recipe import load
from sslkit.training.trainer import Trainer

RECIPE = "dino-cifar10-vit"
SMALL = ["--method.backbone", "{TimmBackbone: {name: test_vit, model_args: {img_size: 32, patch_size: 8}}}"]
SMALL += ["--data.train.max_images", "64", "--data.test.max_images", "16"]
SMALL += ["--method.head.num_prototypes", "32", "--method.head.hidden_dim", "16", "--optimization.batch_size", "8"]

WARMUP, FREEZE = 10 / 200, 1 / 200
"""Shares of the recipe's run."""

MARGIN = 0.8
"""Share of the time left that the steps are to take."""

LEAST = 4
"""Steps that are worth a run."""


def run_for(steps: int, words: list[str], folder: Path) -> Trainer:
    """Train for so many steps, with the recipe's durations in proportion."""
    durations = [f"{max(1, round(share * steps))} steps" for share in (WARMUP, FREEZE)]
    overrides = [
        "--optimization.steps", str(steps), "--optimization.lr.warmup", durations[0], "--optimization.freeze",
        f"{{prototypes: {durations[1]}}}", "--evaluation.every", "null", "--runtime.checkpoint_every", "1000000 steps",
        "--runtime.on_collapse", "ignore", "--evaluation.evaluators", "[{KNN: {k: [20]}}]", *words,
    ]  # fmt: skip
    return train(load(RECIPE, overrides), folder, console=Console(file=StringIO()))


def top1(run: Trainer, network: str) -> float:
    """Return the k-NN accuracy of a network in percent."""
    return next(row["metrics"]["knn/top1@20"] for row in run.results if row["network"] == network)


def main() -> None:
    """Report k-NN before and after, and the speed."""
    options, report = part.start("training")
    begin = time.monotonic()
    if not options.data:
        report.skip(RECIPE, "give --data FOLDER")
        return
    workers = ["--runtime.num_workers", str(min(8, (os.cpu_count() or 2) - 1))]
    words = ["--data", options.data, "--runtime.device", options.device, *(workers if options.full else SMALL)]
    with tempfile.TemporaryDirectory() as place:
        probe, most = (60, None) if options.full else (2, 4)
        before = ["--evaluation.baselines", "[untrained]", "--evaluation.networks", "[]"]
        run = run_for(probe, [*words, *before, "--runtime.log_every", str(probe // 2)], Path(place) / "probe")
        report.figure("k-NN before", top1(run, "untrained"), "%", "of the untrained network")
        rate = run.metrics[-1]["images_per_second"] / run.built.optimization.batch_size
        took = time.monotonic() - begin
        # The run proper, too, opens the images, measures once and saves once.
        left = options.seconds - took - 1.3 * (took - probe / rate)
        steps = min(int(MARGIN * left * rate), most or sys.maxsize)
        if steps < LEAST:
            report.skip(RECIPE, f"{left:.0f} s are too few")
            return
        after = ["--evaluation.baselines", "[]", "--evaluation.networks", "[teacher]"]
        run = run_for(steps, [*words, *after], Path(place) / "run")
        rows, knn = list(run.metrics), top1(run, "teacher")
    losses, later = [row["loss"] for row in rows], rows[1:]
    ends = " to ".join(f"{loss:.3f}" for loss in (losses[0], losses[-1]) if loss is not None)
    report.check("loss is finite", None not in losses, ends)
    report.figure("k-NN after", knn, "%", f"{steps} steps")
    report.figure("speed", statistics.mean(row["images_per_second"] for row in later), "images/s")
    wait = 100 * statistics.mean(row["data_wait_fraction"] for row in later)
    report.figure("wait for data", wait, "%", f"{run.num_workers} workers")


if __name__ == "__main__":
    main()
