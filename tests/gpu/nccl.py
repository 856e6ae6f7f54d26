"""One process under torchrun, with NCCL (gloo on a CPU): a run through the command line, and a step that exchanges.

The run's losses are those of a run without a launcher. With one process sslkit has nothing to exchange, so a step is
taken besides whose gradients torch's DistributedDataParallel exchanges all the same.
"""

import json
import subprocess
import sys
import tempfile
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import part
import torch
import torch.distributed as dist

from sslkit.cli.main import main as command_line
from sslkit.method.executor import Executor
from sslkit.method.step import train_step
from sslkit.optimizers.parameter_groups import set_rates
from sslkit.recipe import load
from sslkit.recipe.model import build_model, build_optimizer
from sslkit.run_folder.metrics_log import read_metrics
from sslkit.training.accelerated import AccelerateExecutor
from sslkit.types import Views

RECIPE = "dino-cifar10-tiny"

LAUNCHED = "launched"
"""The first word for the process that torchrun starts."""

TOLERANCE = 1e-2
"""Relative: convolutions on a GPU add up in any order."""


def train_words(device: str, folder: Path, full: bool) -> list[str]:
    """Return a command of sslkit."""
    batch_size = 64 if full else 8
    words = [*part.unmeasured(device, 4 * batch_size, 8 if full else 2), "--optimization.batch_size", str(batch_size)]
    return ["train", RECIPE, *words, "--precision", "fp32", "--runtime.log_every", "1", "--run-dir", str(folder)]


def step_losses(device: torch.device, exchanges: bool) -> list[float]:
    """Return the losses of two steps, with gradients exchanged by DistributedDataParallel or not."""
    parts = load(RECIPE, ["--data.train", "Textures", "--data.test", "null", "--evaluation.evaluators", "[]"]).build()
    model = build_model(parts.method, None, device)
    optimizer = build_optimizer(parts.optimization, model.student)
    set_rates(optimizer, 1e-3, 0.04)
    # What the executor asks of accelerate, where there are several processes.
    accelerator = SimpleNamespace(
        num_processes=2, device=next(model.parameters()).device, autocast=nullcontext, scaler=None,
        backward=lambda loss: loss.backward(), unscale_gradients=lambda optimizer: None,
    )  # fmt: skip
    executor = AccelerateExecutor(accelerator) if exchanges else Executor()
    executor.prepare(model.student, model.teacher)
    images = torch.randn(2, 8, 3, 32, 32, generator=torch.Generator().manual_seed(0)).to(device)
    return [float(train_step(model, Views.of(images), optimizer, executor=executor).loss) for _ in range(2)]


def launched(results: Path, device: torch.device, words: list[str]) -> None:
    """Be the process that torchrun starts: write the command's code, the backend, and the losses of steps."""
    code = command_line(words)
    losses = {name: step_losses(device, exchanges) for name, exchanges in (("plain", False), ("exchanged", True))}
    results.write_text(json.dumps({"code": code, "backend": dist.get_backend(), **losses}))
    dist.destroy_process_group()


def main() -> None:
    """Report the run and the step."""
    options, report = part.start("nccl")
    backend = "gloo" if options.device == "cpu" else "nccl"
    with tempfile.TemporaryDirectory() as place:
        alone, together, results = (Path(place) / name for name in ("alone", "together", "results"))
        # Not the machine's name, which nobody may know where there is no network.
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--local-addr", "127.0.0.1"]
        torchrun += ["--nproc-per-node", "1", __file__, LAUNCHED, str(results), options.device]
        command = [*torchrun, *train_words(options.device, together, options.full)]
        code = subprocess.run(command, check=False).returncode
        found = json.loads(results.read_text()) if results.exists() else {}
        ended = code == 0 and found.get("code") == 0 and found["backend"] == backend
        report.check("torchrun, 1 process", ended, f"code {code}, {found.get('backend', 'no backend')}")
        with report.attempt("losses as without"):
            command_line(train_words(options.device, alone, options.full))
            losses = [[row["loss"] for row in read_metrics(folder / "metrics.jsonl")] for folder in (together, alone)]
            report.check("losses as without", *near(*losses))
        with report.attempt("a step that exchanges"):
            report.check("a step that exchanges", *near(found["exchanged"], found["plain"]))


def near(mine: list[float], theirs: list[float]) -> tuple[bool, str]:
    """Return whether losses are the same but for rounding, and how far they differ."""
    apart = [abs(a / b - 1) for a, b in zip(mine, theirs, strict=True)]
    return all(each <= TOLERANCE for each in apart), f"{len(apart)} differ by {max(apart):.0e}"


if __name__ == "__main__":
    if sys.argv[1:2] == [LAUNCHED]:
        launched(Path(sys.argv[2]), torch.device(sys.argv[3]), sys.argv[4:])
    else:
        main()
