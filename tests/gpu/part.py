"""What the parts of the check share: their command line, and how they report. Standard library only."""

import argparse
import json
import os
import sys
import textwrap
import time
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]

WIDTH = 80

OWN = ("sslkit", "part", "processes", "bench_")
"""Beginnings of modules of this source tree: one that is missing is a failure, others are named and done without."""

SKIPPED = "skipped: "

# The source tree, whether sslkit is installed or not, and no network; also for the processes that a part starts.
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "benchmarks")]
os.environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}


class Report:
    """The results of a part; each is printed, and appended to a file of JSON lines, as soon as it is known.

    A result is ``part``, ``kind`` (check or figure), ``name``, ``value`` with its ``unit``, ``passed`` (null for a
    figure, and for what was skipped), ``detail`` and the ``seconds`` since the result before it.

    Args:
        part: the part's name.
        path: of the file; None only prints.
    """

    def __init__(self, part: str, path: Path | None = None) -> None:
        self.part, self.path = part, path
        self._last = time.monotonic()

    def check(self, name: str, passed: bool | None, detail: str = "") -> None:
        """Report what is right or wrong."""
        self._add(kind="check", name=name, value=None, unit="", passed=passed, detail=detail)

    def figure(self, name: str, value: float, unit: str, detail: str = "", **others: float) -> None:
        """Report a measurement, and for the file alone ``others`` that belong to it."""
        self._add(kind="figure", name=name, value=value, unit=unit, passed=None, detail=detail, **others)

    def skip(self, name: str, reason: str) -> None:
        """Report a check that cannot be made here."""
        self.check(name, None, SKIPPED + reason)

    @contextmanager
    def attempt(self, name: str) -> Iterator[None]:
        """Have an error inside the block fail the check of this name alone, and a missing library skip it."""
        try:
            yield
        except Exception as error:
            missing = error.name or "" if isinstance(error, ModuleNotFoundError) else ""
            if missing and not missing.startswith(OWN):
                self.skip(name, f"needs {missing}")
            else:
                traceback.print_exc()
                self.check(name, False, f"{type(error).__name__}: {error}")

    def _add(self, **values: Any) -> None:
        now = time.monotonic()
        result = {"part": self.part, **values, "seconds": round(now - self._last, 2)}
        self._last = now
        print("\n".join(lines_of(result)), flush=True)
        if self.path is not None:
            with self.path.open("a") as file:
                file.write(json.dumps(result) + "\n")


def lines_of(result: Mapping[str, Any]) -> list[str]:
    """Return a result as lines of at most `WIDTH` columns: part, name, value or verdict, and detail."""
    detail, verdict = " ".join(result["detail"].split()), "" if result["passed"] is None else "ok"
    if result["passed"] is False:
        verdict = "FAILED"
    elif detail.startswith(SKIPPED):
        verdict, detail = "skipped", detail.removeprefix(SKIPPED)
    value = "" if result["value"] is None else f"{number(result['value'])} {result['unit']}"
    line = f"{result['part']:10} {result['name']:24.24} {value or verdict:>15}  "
    if len(line) + len(detail) <= WIDTH:
        return [(line + detail).rstrip()]
    return [line.rstrip(), *textwrap.wrap(detail, WIDTH, initial_indent=" " * 11, subsequent_indent=" " * 11)]


def number(value: float) -> str:
    """Return a number with at least three digits that count, and thousands apart."""
    if value == 0 or 1e-3 <= abs(value) < 1e7:
        size = abs(value)
        return f"{value:,.{0 if size >= 100 or value == int(value) else 1 if size >= 10 else 2 if size >= 1 else 3}f}"
    return f"{value:.1e}"


def start(name: str) -> tuple[argparse.Namespace, Report]:
    """Read a part's command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--device", default="cuda", help="cuda or cpu")
    parser.add_argument("--size", choices=("full", "small"), default="full", help="small: seconds on a CPU")
    parser.add_argument("--seconds", type=float, default=600, help="after which the part is stopped")
    parser.add_argument("--results", type=Path, help="a file that results are appended to, as JSON lines")
    parser.add_argument("--compile", action="store_true", help="with the backbones compiled")
    parser.add_argument("--data", help="a folder of images")
    options = parser.parse_args()
    options.full = options.size == "full"
    return options, Report(name, options.results)


def unmeasured(device: str, num_images: int, steps: int, size: int = 32) -> list[str]:
    """Return the overrides of a recipe that trains on drawn textures for some steps, and neither measures nor saves."""
    return [
        "--data.train", f"{{Textures: {{num_images: {num_images}, size: {size}}}}}", "--data.test", "null",
        "--data.num_images", "null", "--optimization.steps", str(steps), "--evaluation.evaluators", "[]",
        "--evaluation.baselines", "[]", "--runtime.device", device, "--runtime.on_collapse", "ignore",
        "--runtime.checkpoint_every", "1000000 steps",
    ]  # fmt: skip
