"""Runs that are the same bit for bit with torch's deterministic algorithms: repeated, and resumed from their middle.

Where an operation has no such algorithm it is named, and the runs are compared without asking for one.
"""

import os
import shutil
import tempfile
from io import StringIO
from pathlib import Path

# Read by cuBLAS when CUDA starts; torch's deterministic algorithms want it.
os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"

import part
import torch
from rich.console import Console
from safetensors.torch import load_file

from sslkit.launch import train
from sslkit.recipe import load
from sslkit.run_folder.metrics_log import read_metrics

TIMES = {"images_per_second", "data_wait_fraction"}


def left(folder: Path) -> dict[str, object]:
    """Return everything that must be the same: weights, moments, states and rows."""
    newest = max((folder / "checkpoints").glob("step-*"))
    rows = [{name: row[name] for name in row.keys() - TIMES} for row in read_metrics(folder / "metrics.jsonl")]
    tensors = load_file(newest / "state.safetensors")
    return {name: tensor.numpy().tobytes() for name, tensor in tensors.items()} | {
        "numbers": (newest / "state.json").read_text(),
        "rows": rows,
    }


def compare(folder: Path, other: Path) -> tuple[bool, str]:
    """Return whether two runs left the same, and what differs."""
    mine, theirs = left(folder), left(other)
    differing = sorted(name for name in mine.keys() | theirs.keys() if mine.get(name) != theirs.get(name))
    return not differing, ", ".join([f"{len(theirs) - len(differing)} of {len(theirs)} equal", *differing[:3]])


def run_three(name: str, words: list[str], half: int, place: Path, report: part.Report) -> None:
    """Report on a run, its repetition, and one that a kill after its middle has interrupted."""
    whole, again, resumed = (place / word for word in ("whole", "again", "resumed"))
    recipe = load(name, [*words, "--optimization.steps", str(2 * half), "--runtime.checkpoint_every", f"{half} steps"])
    for folder in (whole, again):
        train(recipe, folder, console=Console(file=StringIO()))
    short = name.replace("-cifar10", "")
    report.check(f"{short} twice", *compare(again, whole))
    shutil.copytree(whole, resumed)
    shutil.rmtree(max((resumed / "checkpoints").glob("step-*")))
    train(recipe, resumed, resume=True, console=Console(file=StringIO()))
    report.check(f"{short} resumed", *compare(resumed, whole))


def main() -> None:
    """Report on a convolutional network and, at full size, on a ViT."""
    options, report = part.start("resume")
    half, batch_size = (6, 64) if options.full else (1, 8)
    words = [*part.unmeasured(options.device, 8 * batch_size, 2 * half), "--optimization.batch_size", str(batch_size)]
    for name in ("dino-cifar10-tiny", "dino-cifar10-vit")[: 2 if options.full else 1]:
        for strict in (True, False):
            # Not torch's warn_only: attention is then not deterministic, though it could be.
            torch.use_deterministic_algorithms(strict)
            try:
                with tempfile.TemporaryDirectory() as place:
                    run_three(name, [*words, "--runtime.log_every", "1"], half, Path(place), report)
            except RuntimeError as error:
                if not (strict and "deterministic" in str(error)):
                    raise
                report.check(
                    f"{name.replace('-cifar10', '')} deterministic", False, str(error).partition(". You can")[0]
                )
            else:
                break


if __name__ == "__main__":
    main()
