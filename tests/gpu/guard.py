"""What the guard against numbers that are not finite costs: ``tests/benchmarks/bench_finite.py``, in the check."""

import part
import torch
from bench_finite import cases


def main() -> None:
    """Report each case."""
    options, report = part.start("guard")
    for name, step, guard in cases(torch.device(options.device), options.full):
        detail = f"{guard / step:.1%} of {1e3 * step:.2f} ms"
        report.figure(name, 1e3 * guard, "ms", detail, step_ms=1e3 * step)


if __name__ == "__main__":
    main()
