"""What it costs to look for numbers that are not finite and to undo what they would write, as a share of a step.

    python tests/benchmarks/bench_finite.py

The quickstart, and DINO on ViT-S/16 with K = 65536; fp32 on a CPU, bf16 on a GPU. On a CPU a flag is read at once, so
that only batch statistics are kept aside; on a GPU nothing is read, and the teacher is kept aside as well.
"""

import statistics
import time
from collections.abc import Callable, Iterator

import torch
from bench_gpu import finish
from bench_step import Bf16, crops, dino, void

from sslkit.method.executor import Executor
from sslkit.method.finite_guard import apply_if_finite, batch_statistics, nonfinite_flags, teacher_state
from sslkit.method.gradients import Clip
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.recipe import load
from sslkit.recipe.model import build_model, build_optimizer
from sslkit.snapshot import TensorSnapshot
from sslkit.types import ViewGroup, Views


def quickstart(device: torch.device) -> tuple[StudentTeacher, torch.optim.Optimizer, Views]:
    """Return the quickstart's model and optimizer, and a batch of its views."""
    parts = load("quickstart").build()
    model = build_model(parts.method, None, device)
    views = Views((ViewGroup(torch.randn(2, parts.optimization.batch_size, 3, 32, 32, device=device), (0, 1)),))
    return model, build_optimizer(parts.optimization, model.student), views


def measure(
    model: StudentTeacher, optimizer: torch.optim.Optimizer, views: Views, executor: Executor, repeats: int
) -> tuple[float, float]:
    """Return the median seconds of a step, and of what guards it."""
    device = views.groups[0].images.device
    output = train_step(model, views, optimizer, clip=Clip(3.0), executor=executor)

    def guard() -> None:
        kept = TensorSnapshot(lambda: batch_statistics(model))
        flags = nonfinite_flags(output.loss, output.teacher, optimizer)
        apply_if_finite(flags, optimizer, lambda: None, lambda: teacher_state(model))
        kept.restore_if(flags)

    works = {
        "step": lambda: void(train_step(model, views, optimizer, clip=Clip(3.0), executor=executor)),
        "guard": guard,
    }
    times: dict[str, list[float]] = {name: [] for name in works}
    for turn in range(repeats + 1):
        for name, work in works.items():
            took = seconds(work, device)
            if turn:
                times[name].append(took)
    return statistics.median(times["step"]), statistics.median(times["guard"])


def seconds(work: Callable[[], None], device: torch.device) -> float:
    """Return the seconds of finished work: the processor's own on a CPU, which others may use besides."""
    clock = time.process_time if device.type == "cpu" else time.perf_counter
    finish(device)
    start = clock()
    work()
    finish(device)
    return clock() - start


def cases(device: torch.device, full: bool = True) -> Iterator[tuple[str, float, float]]:
    """Yield what is trained, and the seconds of a step and of its guard."""
    on_gpu = device.type == "cuda"
    executor = Bf16(device) if on_gpu else Executor()
    yield "quickstart", *measure(*quickstart(device), executor, 30 if full else 1)
    label, name, batch, repeats = "ViT-S/16", "vit_small_patch16_224", *((64, 20) if on_gpu else (8, 3))
    if not full:
        label, name, batch, repeats = "test_vit", "test_vit", 2, 1
    yield f"{label}, {batch} images", *measure(*dino(name, device), crops(batch, device), executor, repeats)


def main() -> None:
    """Print the table."""
    torch.set_num_threads(1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name, step, guard in cases(device):
        print(f"{name:24s}step {step * 1e3:9.2f} ms   guard {guard * 1e3:7.2f} ms   {guard / step:.2%} of the step")


if __name__ == "__main__":
    main()
