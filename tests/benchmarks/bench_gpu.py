"""The DINO step of ViT-S/16 on a GPU: images/s, and the share of what the same GPU's matrix products reach.

    python tests/benchmarks/bench_gpu.py

Batch 64, 2x224 + 6x96, K = 65536, bf16. The peak is measured beside it, as an 8192^3 bf16 product: the share does
not hang on a data sheet. Floating-point operations are torch's own count of one step.
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from bench_step import crops, dino
from torch.utils.flop_counter import FlopCounterMode

from sslkit.training.executor import Executor
from sslkit.training.step import Clip, train_step

WARMUP, REPEATS = 5, 20


class Bf16(Executor):
    """The plain executor under bf16 autocast."""

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=torch.bfloat16)


def seconds(work: Callable[[], object], device: torch.device, repeats: int = REPEATS) -> float:
    """Return the median time of finished work."""
    times = []
    for turn in range(WARMUP + repeats):
        start = time.perf_counter()
        work()
        if device.type == "cuda":
            torch.cuda.synchronize()
        if turn >= WARMUP:
            times.append(time.perf_counter() - start)
    return statistics.median(times)


def measure(device: torch.device, backbone: str, batch: int, side: int) -> dict[str, float]:
    """Return images/s, achieved and reachable FLOP/s, and their ratio."""
    model, optimizer = dino(backbone, device)
    views, executor = crops(batch, device), Bf16(device)

    def step() -> None:
        train_step(model, views, optimizer, clip=Clip(3.0), executor=executor)

    with FlopCounterMode(display=False) as counter:
        step()
    a = torch.randn(side, side, device=device, dtype=torch.bfloat16)
    reachable = 2 * side**3 / seconds(lambda: a @ a, device)
    took = seconds(step, device)
    achieved = counter.get_total_flops() / took
    return {"images/s": batch / took, "TFLOP/s": achieved / 1e12, "share of the product's": achieved / reachable}


def main() -> int:
    """Print the figures, or say that there is no GPU."""
    if not torch.cuda.is_available():
        print("no CUDA device: nothing measured")
        return 1
    print(torch.cuda.get_device_name())
    for name, value in measure(torch.device("cuda"), "vit_small_patch16_224", 64, 8192).items():
        print(f"  {name:24s}{value:10.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
