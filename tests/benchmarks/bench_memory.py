"""The memory that `sslkit explain` tells against the peak of real steps, each in a process of its own, on the CPU.

python tests/benchmarks/bench_memory.py quickstart:64 dino-cifar10-tiny:128
python tests/benchmarks/bench_memory.py dino-vit-small:8 --runtime.checkpoint_activations true
"""

import multiprocessing
import sys
from pathlib import Path

import torch

from sslkit.explain.memory import estimate_memory
from sslkit.method.executor import Executor
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates
from sslkit.recipe import load
from sslkit.recipe.build import Builder
from sslkit.recipe.model import build_model
from sslkit.types import Views

PRECISIONS = {"fp32": None, "bf16": torch.bfloat16}


class Precise(Executor):
    """One process in a named precision."""

    def __init__(self, precision: str) -> None:
        self.dtype = PRECISIONS[precision]

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", self.dtype, enabled=self.dtype is not None)


def resident(key: str) -> int:
    """Return this process's memory in bytes: VmRSS now, VmHWM its peak."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status[key].split()[0]) * 1024


def model_of(builder: Builder) -> StudentTeacher:
    """Build the networks as a run on the CPU does."""
    again = builder.build("runtime.checkpoint_activations")
    return build_model(builder.build("method"), None, torch.device("cpu"), again)


def take_steps(builder: Builder, batch_size: int, precision: str) -> None:
    """Take two steps on noise."""
    maker, optimizer = builder.build("views"), builder.build("optimization").optimizer
    model = model_of(builder)
    stepper = optimizer.build(parameter_groups(model.student, optimizer.decays_vectors))
    set_rates(stepper, 1e-4, 0.04)
    for _ in range(2):
        sizes = [torch.randn(batch_size, maker.channels, size, size) for size in maker.sizes]
        views = Views.of(sizes, maker.num_globals)
        del sizes
        train_step(model, views, stepper, executor=Precise(precision))


def measured(name: str, batch_size: int, precision: str, overrides: list[str]) -> int:
    """Return the bytes that steps take over what libraries take once, which a batch of two images shows first."""
    torch.set_num_threads(1)
    take_steps(load(name, overrides).builder(), 2, precision)
    before = resident("VmRSS")
    take_steps(load(name, overrides).builder(), batch_size, precision)
    return resident("VmHWM") - before


def estimated(name: str, batch_size: int, precision: str, overrides: list[str]) -> int:
    """Return what `sslkit explain` would say."""
    builder = load(name, overrides).builder()
    model = model_of(builder)
    optimizer = builder.build("optimization").optimizer
    return estimate_memory(model, builder.build("views"), optimizer, batch_size, precision=precision).peak


def main(words: list[str]) -> None:
    """Print a line a recipe and precision; from the first ``--`` on, words are overrides."""
    first = next((i for i, word in enumerate(words) if word.startswith("--")), len(words))
    words, overrides = words[:first], words[first:]
    for word in words or ["quickstart:64", "dino-cifar10-tiny:128"]:
        name, _, batch_size = word.partition(":")
        for precision in PRECISIONS:
            job = name, int(batch_size), precision, overrides
            with multiprocessing.get_context("spawn").Pool(1) as pool:
                real, told = pool.apply(measured, job), pool.apply(estimated, job)
            print(f"{name}  {batch_size} images  {precision}  told {told / 1e6:,.0f} MB  took {real / 1e6:,.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1:])
