"""DINO on ViT-S/16 at batch 64 in bf16: images/s of the step, with its views and in training; matrix rate; memory.

    python tests/benchmarks/bench_gpu.py
    python tests/benchmarks/bench_gpu.py --compile

`dino-vit-small-6-local`: 2x224 + 6x96, K = 65536. The device's matrix rate is measured beside it, as an 8192^3 bf16
product: the share does not hang on a data sheet. Floating-point operations are torch's own count of one step. The
views are made on the device of uint8 crops that lie in page-locked memory, as loader workers deliver them. In training
the workers crop images that are in memory: a wait for data does not hang on a disk or a decoder.
"""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import NamedTuple

import torch
from bench_memory import estimated
from bench_step import Bf16
from rich.console import Console
from torch.utils.flop_counter import FlopCounterMode

from sslkit.device import COMPILE_OPTIONS
from sslkit.method.gradients import Clip
from sslkit.method.step import train_step
from sslkit.optimizers.parameter_groups import set_rates
from sslkit.recipe import load
from sslkit.recipe.model import build_model, build_optimizer
from sslkit.run_folder.folder import Record
from sslkit.training.trainer import Trainer
from sslkit.types import Views

RECIPE = "dino-vit-small-6-local"


class Figure(NamedTuple):
    """A measurement."""

    name: str
    value: float
    unit: str
    detail: str = ""


@dataclass(frozen=True)
class Size:
    """How large the measurement is.

    Args:
        batch_size: images in a step.
        image_size: side of the images in pixels.
        matrix: side of the matrices in the product.
        warmup: calls that are not timed.
        rounds: of which the median is taken.
        calls: in a round.
        steps: of training.
        words: overrides of the recipe.
    """

    batch_size: int = 64
    image_size: int = 256
    matrix: int = 8192
    warmup: int = 3
    rounds: int = 5
    calls: int = 4
    steps: int = 40
    words: tuple[str, ...] = ()


SMALL = Size(
    batch_size=4, image_size=32, matrix=64, warmup=1, rounds=1, calls=1, steps=4,
    words=(
        "--method.backbone", "{TimmBackbone: {name: test_vit}}", "--method.head.num_prototypes", "32",
        "--method.head.hidden_dim", "16", "--views.global_size", "32", "--views.local_size", "16",
    ),
)  # fmt: skip


def finish(device: torch.device) -> None:
    """Wait for the device."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def seconds(work: Callable[[], object], device: torch.device, size: Size) -> float:
    """Return the median time of a call, of rounds of calls that nobody waits for in between."""
    times = []
    for _ in range(size.warmup):
        work()
    for _ in range(size.rounds):
        finish(device)
        start = time.perf_counter()
        for _ in range(size.calls):
            work()
        finish(device)
        times.append((time.perf_counter() - start) / size.calls)
    return statistics.median(times)


class Unsaved(Trainer):
    """A run that leaves no checkpoint."""

    def save(self) -> None:
        """Write nothing: what is measured is training."""


def build_run(kind: type[Trainer], name: str, overrides: list[str], folder: Path) -> Trainer:
    """Return a run of a recipe, of a class of its own; it shows nothing."""
    recipe = load(name, overrides)
    record = Record(recipe.name, recipe.to_yaml(), recipe.identity())
    return kind(recipe.build(), record, folder, console=Console(file=StringIO()))


def figures(device: torch.device, size: Size = Size(), compiled: bool = False) -> Iterator[Figure]:
    """Yield the figures; with compiled backbones those of the step alone."""
    images = f"{{Textures: {{num_images: {2 * size.batch_size}, size: {size.image_size}}}}}"
    overrides = [
        "--data.train", images, "--data.test", "null", "--optimization.batch_size", str(size.batch_size),
        "--precision", "bf16", "--evaluation.evaluators", "[]", "--evaluation.baselines", "[]",
        "--runtime.device", device.type, *size.words,
    ]  # fmt: skip
    parts = load(RECIPE, overrides).build()
    estimate = estimated(RECIPE, size.batch_size, "bf16", overrides)
    model = build_model(parts.method, None, device)
    optimizer, executor, clip = build_optimizer(parts.optimization, model.student), Bf16(device), Clip(3.0)
    set_rates(optimizer, 1e-4, 0.04)
    samples = [parts.data.train.read(index) for index in range(size.batch_size)]
    crops = [torch.stack(each) for each in zip(*[parts.views.prepare(sample, 0, 0) for sample in samples], strict=True)]
    crops = [each.pin_memory() for each in crops] if device.type == "cuda" else crops
    keys = torch.tensor([sample.key for sample in samples])

    def make() -> Views:
        return parts.views.make([each.to(device, non_blocking=True) for each in crops], keys, 0, 0)

    def step(views: Views) -> None:
        train_step(model, views, optimizer, clip=clip, executor=executor)

    views = make()
    with FlopCounterMode(display=False) as counter:
        step(views)
    operations = counter.get_total_flops()
    if compiled:
        for branch in (model.student, model.teacher):
            branch.backbone.compile(options=COMPILE_OPTIONS)
        finish(device)
        start = time.perf_counter()
        step(views)
        finish(device)
        yield Figure("first compiled step", time.perf_counter() - start, "s")
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
        step(views)
        peak = torch.cuda.max_memory_allocated()
        yield Figure("peak memory", peak / 1e9, "GB", f"explain: {estimate / 1e9:.2f} GB, {peak / estimate:.2f} x")
    alone = seconds(lambda: step(views), device, size)
    yield Figure("step alone", size.batch_size / alone, "images/s", f"{1e3 * alone:.1f} ms")
    a = torch.randn(size.matrix, size.matrix, device=device, dtype=torch.bfloat16)
    reachable = 2 * size.matrix**3 / seconds(lambda: a @ a, device, size)
    share = f"{operations / alone / 1e12:.3g} of {reachable / 1e12:.3g} TFLOP/s"
    yield Figure("share of the matrix rate", 100 * operations / alone / reachable, "%", share)
    if compiled:
        return
    whole = seconds(lambda: step(make()), device, size)
    yield Figure("step with views", size.batch_size / whole, "images/s", f"{1e3 * whole:.1f} ms")
    yield from training(device, size, overrides)


def training(device: torch.device, size: Size, overrides: list[str]) -> Iterator[Figure]:
    """Yield the figures of a real run, of its later half."""
    steps = ["--optimization.steps", str(size.steps), "--runtime.log_every", str(max(1, size.steps // 4))]
    with tempfile.TemporaryDirectory() as folder:
        run = build_run(Unsaved, RECIPE, [*overrides, *steps, "--runtime.on_collapse", "ignore"], Path(folder) / "run")
        run.execute()
        rows = [row for row in run.metrics if row["step"] > size.steps / 2]
    rate, wait = (statistics.mean(row[name] for row in rows) for name in ("images_per_second", "data_wait_fraction"))
    yield Figure("training", rate, "images/s", f"{run.num_workers} workers crop")
    yield Figure("wait for data", 100 * wait, "%", "of the time of training")


def main() -> int:
    """Print the figures, or say that there is no GPU."""
    if not torch.cuda.is_available():
        print("no CUDA device: nothing measured")
        return 1
    print(torch.cuda.get_device_name())
    for name, value, unit, detail in figures(torch.device("cuda"), compiled="--compile" in sys.argv[1:]):
        print(f"  {name:26s}{value:10.2f} {unit:9s} {detail}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
