"""The DINO step against the bare work it cannot do without, one thread, in one run.

Bare work: the student backbone's forward and backward over all crops, one batch a resolution, the teacher backbone's
forward over the globals, a trivial loss; no head, optimizer or average.

    python tests/benchmarks/bench_step.py
"""

import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.collapse import Centering
from sslkit.heads.dino_head import DINOHead
from sslkit.losses import CrossEntropy
from sslkit.method.branch import Branch
from sslkit.method.executor import Executor
from sslkit.method.gradients import Clip
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.optimizers.adamw import AdamW
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates
from sslkit.teachers import EMA
from sslkit.types import ViewGroup, Views

BATCH, PROTOTYPES, REPEATS = 8, 65536, 5
BACKBONE = "vit_tiny_patch16_224"


class Bf16(Executor):
    """The plain executor under bf16 autocast."""

    def __init__(self, device: torch.device | str = "cpu") -> None:
        self.kind = torch.device(device).type

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.kind, dtype=torch.bfloat16)


def crops(batch: int = BATCH, device: torch.device | str = "cpu") -> Views:
    """Return 2 global and 6 local views of noise."""
    torch.manual_seed(0)
    sides = [(2, 224, (0, 1)), (6, 96, (2, 3, 4, 5, 6, 7))]
    return Views(tuple(ViewGroup(torch.randn(v, batch, 3, s, s, device=device), ids) for v, s, ids in sides))


def dino(
    name: str, device: torch.device | str = "cpu", fused_attention: bool | None = None
) -> tuple[StudentTeacher, torch.optim.Optimizer]:
    """Return DINO on a timm backbone, and its optimizer."""
    backbone = TimmBackbone(name, fused_attention=fused_attention)
    model = StudentTeacher(
        Branch(backbone, DINOHead(backbone.embed_dim, num_prototypes=PROTOTYPES)),
        teacher_update=EMA(0.996),
        collapse=Centering(PROTOTYPES),
        loss=CrossEntropy(),
    ).to(device)
    optimizer = AdamW().build(parameter_groups(model.student))
    set_rates(optimizer, 1e-4, 0.04)
    return model, optimizer


def our_step(executor: Executor, fused_attention: bool | None = None) -> Callable[[], None]:
    """Return our whole step on crops that are there."""
    (model, optimizer), views = dino(BACKBONE, fused_attention=fused_attention), crops()
    return lambda: void(train_step(model, views, optimizer, clip=Clip(3.0), executor=executor))


def bare_work(executor: Executor) -> Callable[[], None]:
    """Return the work that no implementation can do without."""
    student, teacher = TimmBackbone(BACKBONE), TimmBackbone(BACKBONE).requires_grad_(False)
    groups = [group.images.flatten(0, 1) for group in crops().groups]

    def work() -> None:
        student.zero_grad(set_to_none=True)
        with executor.autocast():
            with torch.no_grad():
                aim: Tensor = teacher(groups[0]).cls.float().mean()
            seen = torch.cat([student(images).cls for images in groups])
        (seen.float().mean() - aim).square().backward()

    return work


def void(_: object) -> None:
    """Drop a step's output before the next begins."""


def interleaved(works: dict[str, Callable[[], None]], repeats: int = REPEATS) -> dict[str, float]:
    """Return each work's median seconds, taken in turns so that a drifting machine is fair to all."""
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            start = time.perf_counter()
            work()
            if turn:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def peak_gigabytes() -> float:
    """Return the peak resident memory of a process that takes three fp32 steps."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_three_steps)


def _three_steps() -> float:
    torch.set_num_threads(1)
    step = our_step(Executor())
    for _ in range(3):
        step()
    # Not getrusage: a child's ru_maxrss starts at its parent's.
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 2**20


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    works = {"bare fp32": bare_work(Executor()), "step fp32": our_step(Executor())}
    if torch.cpu.get_capabilities().get("avx512_bf16"):
        works["step bf16"] = our_step(Bf16(), fused_attention=False)  # as a run chooses it
        works["step bf16, fused attention"] = our_step(Bf16())
    seconds = interleaved(works)
    bare = seconds["bare fp32"]
    print(f"{BACKBONE}, batch {BATCH}, 2x224 + 6x96, K = {PROTOTYPES}, one thread, median of {REPEATS}")
    for name, value in seconds.items():
        print(f"  {name}   {value:6.2f} s   {value / bare:.2f} x bare")
    print(f"  peak memory of the fp32 step: {peak_gigabytes():.2f} GB")


if __name__ == "__main__":
    main()
