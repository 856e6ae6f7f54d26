"""The figures of ``tests/benchmarks/bench_gpu.py``, in the check."""

import part
import torch
from bench_gpu import SMALL, Size, figures


def main() -> None:
    """Report each figure once it is measured."""
    options, report = part.start("throughput")
    if options.compile:
        report.part = "compiled"
    for name, value, unit, detail in figures(
        torch.device(options.device), Size() if options.full else SMALL, options.compile
    ):
        report.figure(name, value, unit, detail)


if __name__ == "__main__":
    main()
