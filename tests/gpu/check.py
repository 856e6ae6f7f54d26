"""One command for a GPU: what only a GPU can show, the most valuable first.

    python tests/gpu/check.py --minutes 6 --output FOLDER --data FOLDER

Each part runs in a process of its own and in its own share of the time, so that one failure costs only itself; the time
that a part leaves goes to the next ones. Results are printed as they come and once more as a table, and check.json is
written after each part. Ends with code 1 where a check failed, never because of a figure, and with 2 where nothing
could be measured. Only the standard library is needed to start: a part that lacks an import is skipped and says which.
"""

import argparse
import importlib.util
import json
import platform
import re
import sys
import tempfile
import textwrap
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import part
import processes

HERE = Path(__file__).resolve().parent

IMPORTS = {
    "torch": "torch", "torchvision": "torchvision", "triton": "triton", "timm": "timm", "kornia": "kornia",
    "accelerate": "accelerate", "datasets": "datasets", "pyarrow": "pyarrow", "jsonargparse": "jsonargparse",
    "yaml": "pyyaml", "pluggy": "pluggy", "numpy": "numpy", "PIL": "pillow", "safetensors": "safetensors",
    "huggingface_hub": "huggingface_hub", "rich": "rich", "sklearn": "scikit-learn", "matplotlib": "matplotlib",
    "pytest": "pytest",
}  # fmt: skip
"""Modules, and the distributions that they come with."""

LEAST = 5.0
"""Seconds that a part gets even where that is more than its share; without them it is not started."""

LAST_LINES = 5
"""Of what a part printed before it crashed, in its result."""

NOTHING = 2
"""The exit code where nothing could be measured."""

Result = dict[str, Any]


@dataclass(frozen=True)
class Part:
    """One process of the check.

    Args:
        name: in its results.
        script: beside this file, or anywhere by its absolute path.
        share: of the time, in proportion to the others'.
        words: for the script, besides those that every part gets.
        checks: whether it fails if it does not end in time; one that only measures does not.
        on_cpu: whether ``--device cpu`` runs it.
    """

    name: str
    script: str
    share: float
    words: tuple[str, ...] = ()
    checks: bool = True
    on_cpu: bool = True


MACHINE = Part("machine", "machine.py", 0)
"""Comes first, and ends with an error where there is no such device."""

PARTS = [
    Part("tests", "marked_tests.py", 40),
    Part("recipes", "tiny_recipes.py", 50),
    Part("throughput", "throughput.py", 50, checks=False),
    Part("compiled", "throughput.py", 75, ("--compile",), checks=False, on_cpu=False),
    Part("views", "views.py", 20, checks=False),
    Part("guard", "guard.py", 20, checks=False),
    Part("waits", "synchronization.py", 25),
    Part("resume", "resume.py", 25),
    Part("nccl", "nccl.py", 35),
    Part("training", "training.py", 20, checks=False),
]
"""In the order of their value. The shares are the seconds of six minutes."""


class Runner:
    """Runs parts and reads their results.

    Args:
        device: cuda or cpu, the latter at the smallest sizes.
        data: a folder of images, or None.
        folder: for the files of the parts.
    """

    def __init__(self, device: str, data: str | None, folder: Path) -> None:
        self.folder = folder
        self.words = ["--device", device, "--size", "small" if device == "cpu" else "full"]
        self.words += ["--data", data] if data else []
        self.start: Callable[[Path, Sequence[str], Path], processes.Process] = processes.start_forked

    def run(self, one: Part, limit: float) -> list[Result]:
        """Return the results of a part, and what became of it where it did not end well."""
        print(f"\n{one.name}, at most {limit:.0f} s", flush=True)
        begin, log, file = time.monotonic(), self.folder / "log", self.folder / "results"
        file.write_text("")
        words = [*one.words, *self.words, "--seconds", f"{limit:.0f}", "--results", str(file)]
        try:
            process = self.start(HERE / one.script, words, log)
        except (OSError, EOFError):
            self.start = processes.start_fresh
            process = self.start(HERE / one.script, words, log)
        try:
            in_time = process.wait(limit)
        finally:
            if process.code() is None:
                process.stop()
        results, said = list(_read(file)), log.read_text(errors="replace")
        if not in_time:
            end = "ends in time", False if one.checks else None, f"stopped after {limit:.0f} s"
        else:
            end = _judge(process.code(), said, bool(results))
        return [*results, *([_result(one, *end, time.monotonic() - begin)] if end else [])]


def _judge(code: int | None, log: str, reported: bool) -> tuple[str, bool | None, str] | None:
    """Return name, verdict and detail of what is wrong with a part that has ended; None where nothing is.

    Args:
        code: of its end.
        log: what it printed.
        reported: whether there are results.
    """
    missing = re.findall(r"ModuleNotFoundError: No module named '([^'.]+)", log)
    if code and missing and not missing[-1].startswith(part.OWN):
        return "all of it", None, f"{part.SKIPPED}needs {missing[-1]}"
    if code:
        last = [line.strip() for line in log.splitlines() if line.strip()][-LAST_LINES:]
        return "ends well", False, f"code {code}: {' | '.join(last)}"
    return None if reported else ("reports something", False, "nothing")


def _result(one: Part, name: str, passed: bool | None, detail: str, seconds: float = 0.0) -> Result:
    result = {
        "part": one.name, "kind": "check", "name": name, "value": None, "unit": "", "passed": passed, "detail": detail,
        "seconds": round(seconds, 2),
    }  # fmt: skip
    print("\n".join(part.lines_of(result)), flush=True)
    return result


def _read(file: Path) -> Iterator[Result]:
    """Yield the results in a file; a line that its process was stopped in is left out."""
    for line in file.read_text().splitlines():
        with suppress(ValueError):
            yield json.loads(line)


def _versions() -> dict[str, str | None]:
    """Return the versions of libraries, None where one cannot be imported."""
    found: dict[str, str | None] = {}
    for module, distribution in IMPORTS.items():
        try:
            found[module] = version(distribution) if importlib.util.find_spec(module) else None
        except PackageNotFoundError:
            found[module] = "of no known version"
    return found


def _say(text: str) -> None:
    print(textwrap.fill(text, part.WIDTH, subsequent_indent="  ", break_on_hyphens=False), flush=True)


def _write(file: Path, content: object) -> None:
    """Write JSON, whole or not at all."""
    temporary = file.with_suffix(".tmp")
    temporary.write_text(json.dumps(content, indent=1) + "\n")
    temporary.replace(file)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    names = [one.name for one in PARTS]
    parser = argparse.ArgumentParser(description="What only a GPU can show, the most valuable first.")
    parser.add_argument("--minutes", type=float, default=6, help="for everything (6)")
    parser.add_argument("--output", type=Path, default=Path("runs/gpu"), help="folder of check.json (runs/gpu)")
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda", help="cpu runs the smallest sizes")
    parser.add_argument("--data", help="a folder of images to train on, as sslkit train takes it")
    parser.add_argument("--only", help=f"some parts, separated by commas: {', '.join(names)}")
    options = parser.parse_args(argv)
    options.only = options.only.split(",") if options.only else names
    if unknown := [name for name in options.only if name not in names]:
        parser.error(f"--only: there is no part {unknown[0]!r}. Choices: {', '.join(names)}")
    return options


def main(argv: Sequence[str] | None = None) -> int:
    """Run the parts, write check.json and print the table."""
    options, begin, libraries = _options(argv), time.monotonic(), _versions()
    present = (f"{name} {number}" for name, number in libraries.items() if number is not None)
    _say(", ".join([f"Python {platform.python_version()}", *present]))
    if missing := [name for name, number in libraries.items() if number is None]:
        _say(f"missing: {', '.join(missing)}")
    options.output.mkdir(parents=True, exist_ok=True)
    results: list[Result] = []

    def left() -> float:
        # A part that must be stopped takes longer than its limit.
        return 60 * options.minutes - 2 * processes.GRACE - (time.monotonic() - begin)

    def add(new: Sequence[Result]) -> None:
        results.extend(new)
        about = {"device": options.device, "minutes": options.minutes, "seconds": round(time.monotonic() - begin, 1)}
        _write(options.output / "check.json", {**about, "versions": libraries, "results": results})

    with tempfile.TemporaryDirectory() as folder:
        runner = Runner(options.device, options.data, Path(folder))
        for start in (processes.start_forked, processes.start_fresh):
            # A driver that an import has touched cannot be used in a forked process.
            runner.start = start
            if _is_well(machine := runner.run(MACHINE, left() / 4)):
                break
        add(machine)
        if not _is_well(machine):
            _say(f"nothing can be measured on {options.device} here; --device cpu runs the smallest sizes")
            return NOTHING
        ahead = [one for one in PARTS if one.name in options.only]
        scale = left() / sum(one.share for one in ahead)
        while ahead:
            one, *ahead = ahead
            limit = min(left(), max(LEAST, left() - scale * sum(later.share for later in ahead)))
            if options.device == "cpu" and not one.on_cpu:
                add([_result(one, "all of it", None, f"{part.SKIPPED}takes minutes on a CPU")])
            elif limit < LEAST:
                add([_result(one, "all of it", None, f"{part.SKIPPED}no time left")])
            else:
                add(runner.run(one, limit))
    print(f"\n{'=' * part.WIDTH}")
    for result in results:
        print("\n".join(part.lines_of(result)))
    verdicts = [result["passed"] for result in results if result["kind"] == "check"]
    passed, failed, skipped = (sum(verdict is kind for verdict in verdicts) for kind in (True, False, None))
    print("=" * part.WIDTH)
    _say(f"{passed} checks passed, {failed} failed, {skipped} not made, in {time.monotonic() - begin:.0f} s")
    measured = any(result["kind"] == "figure" for result in results[len(machine) :])
    return 1 if failed else 0 if passed or measured else NOTHING


def _is_well(results: Sequence[Result]) -> bool:
    return any(result["kind"] == "figure" for result in results) and not any(r["passed"] is False for r in results)


if __name__ == "__main__":
    sys.exit(main())
