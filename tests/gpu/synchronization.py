"""Waits for the device in a run's unlogged steps, by torch's own debug mode: there are none."""

import tempfile
import traceback
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import part
import torch
from bench_gpu import Unsaved, build_run

MESSAGE = "synchronizing CUDA operation"
"""In torch's warning (``torch.cuda.set_sync_debug_mode``)."""

WARMUP = 2
"""Steps in which libraries set themselves up."""

CASES = {
    "dino, bf16": ("dino", []),
    "dino, fp16": ("dino", ["--precision", "fp16"]),
    "dino, cropped by workers": ("dino", ["--views.crop_on", "workers", "--views.canvas_size", "null"]),
    "byol, bf16": ("byol", []),
    "moco-v2, bf16": ("moco-v2", []),
    "swav, bf16": ("swav", []),
}


@contextmanager
def noticed(places: Counter[str], device: torch.device) -> Iterator[None]:
    """Count the lines inside the block that wait for the device."""

    def note(message: Warning | str, *words: Any) -> None:
        if MESSAGE in str(message):
            places[place_of(traceback.extract_stack())] += 1
        else:
            show(message, *words)

    with warnings.catch_warnings():
        warnings.filterwarnings("always", f".*{MESSAGE}")
        show, warnings.showwarning = warnings.showwarning, note
        _set_mode("warn", device)
        try:
            yield
        finally:
            _set_mode("default", device)


def _set_mode(mode: str, device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.set_sync_debug_mode(mode)


def place_of(stack: traceback.StackSummary) -> str:
    """Return the innermost line of sslkit in a stack, or of whoever is innermost besides."""
    others = [frame for frame in stack if Path(frame.filename).name not in (Path(__file__).name, "warnings.py")]
    ours = [frame for frame in others if Path(frame.filename).is_relative_to(part.ROOT / "sslkit")]
    frame = (ours or others)[-1]
    return f"{Path(frame.filename).name}:{frame.lineno} {frame.line}"


class Watched(Unsaved):
    """A run that counts the waits in its unlogged steps: a step's data, its views, and what it leaves."""

    def __init__(self, *words: Any, **named: Any) -> None:
        super().__init__(*words, **named)
        self.places: Counter[str] = Counter()
        self.watched = 0

    def _advance(self, *words: Any) -> None:
        if self.clock.step < WARMUP or self.intervals.logs(self.clock):
            return super()._advance(*words)
        self.watched += 1
        with noticed(self.places, self.device):
            return super()._advance(*words)


def main() -> None:
    """Report a check for each case."""
    options, report = part.start("waits")
    if options.device == "cuda":
        control: Counter[str] = Counter()
        with noticed(control, torch.device("cuda")):
            torch.zeros(1, device="cuda").item()
        report.check("a wait is noticed", bool(control))
    steps, batch_size = (10, 128) if options.full else (4, 8)
    for name, (method, overrides) in CASES.items():
        if options.device == "cpu" and name != "dino, bf16":
            continue
        words = [*part.unmeasured(options.device, 8 * batch_size, steps), "--optimization.batch_size", str(batch_size)]
        words += ["--precision", "bf16", "--runtime.log_every", "100", *overrides]
        with report.attempt(name), tempfile.TemporaryDirectory() as folder:
            run = build_run(Watched, f"{method}-cifar10-tiny", words, Path(folder) / "run")
            run.execute()
            found = "; ".join(f"{place} ({count} x)" for place, count in run.places.most_common())
            if options.device == "cpu":
                report.skip(name, "needs CUDA")
            else:
                report.check(name, not found and run.watched > 0, found or f"none in {run.watched} steps")


if __name__ == "__main__":
    main()
