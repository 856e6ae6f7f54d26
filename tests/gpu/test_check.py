"""The check for a GPU: all of it on the CPU, at the smallest sizes; and planted parts that fail in every way."""

import importlib
import json
import os
import subprocess
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from sslkit.data import Textures

HERE = Path(__file__).parent
KEYS = {"part", "kind", "name", "value", "unit", "passed", "detail", "seconds"}


@pytest.fixture
def module(monkeypatch):
    """Return what imports a script of this folder; what it sets for its process is undone."""
    modules, environment = {*sys.modules}, dict(os.environ)
    monkeypatch.syspath_prepend(str(HERE))
    yield importlib.import_module
    for name in {*sys.modules} - modules:
        if Path(getattr(sys.modules[name], "__file__", None) or "/").is_relative_to(HERE.parent):
            del sys.modules[name]
    os.environ.clear()
    os.environ.update(environment)


def run(command, folder, **options):
    done = subprocess.run(
        [sys.executable, *map(str, command), "--output", str(folder)], capture_output=True, text=True, **options
    )
    said, file = done.stdout, folder / "check.json"
    assert "Traceback" not in done.stderr, done.stderr
    return done.returncode, said, json.loads(file.read_text())


def images(folder):
    """Write a folder of images in two classes."""
    for split, count in (("train", 16), ("test", 8)):
        source = Textures(count, split=split)
        for index in range(count):
            sample = source.read(index)
            file = folder / split / ("odd" if sample.label % 2 else "even") / f"{index}.png"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(sample.image.permute(1, 2, 0).numpy()).save(file)
    return folder


def test_the_check_on_a_cpu(tmp_path):
    command = [HERE / "check.py", "--device", "cpu", "--minutes", "8", "--data", images(tmp_path / "images")]
    code, said, written = run(command, tmp_path / "out")
    results = written["results"]
    found = {(result["part"], result["name"]): result for result in results}
    assert code == 0, said
    assert all(result.keys() >= KEYS for result in results)
    assert [*dict.fromkeys(part for part, _ in found)] == [
        "machine", "tests", "recipes", "throughput", "compiled", "views", "guard", "waits", "resume", "nccl", "training"
    ]  # fmt: skip

    passed = {key for key, result in found.items() if result["passed"]}
    skipped = {key for key, result in found.items() if result["detail"].startswith("skipped: ")}
    figures = {key for key, result in found.items() if result["kind"] == "figure" and result["value"] >= 0}
    assert passed == {
        *(("recipes", f"{method}, bf16") for method in ("dino", "byol", "moco-v2", "swav")),
        ("resume", "dino-tiny twice"), ("resume", "dino-tiny resumed"), ("nccl", "torchrun, 1 process"),
        ("nccl", "losses as without"), ("nccl", "a step that exchanges"), ("training", "loss is finite"),
    }  # fmt: skip
    assert len(results) == len(found) == len(passed) + len(skipped) + len(figures)
    assert {name for part, name in figures if part == "throughput"} == {
        "step alone", "share of the matrix rate", "step with views", "training", "wait for data"
    }  # fmt: skip
    differences = {name: found[part, name]["difference"] for part, name in figures if "difference" in found[part, name]}
    assert len(differences) == 9
    assert all(difference < 1e-3 for name, difference in differences.items() if name != "crop")

    table = said[said.index("=" * 80) :].splitlines()
    assert max(map(len, table)) <= 80
    assert [line.split()[0] for line in table[1:-2] if line[0] != " "] == [result["part"] for result in results]
    assert table[-1].startswith("10 checks passed, 0 failed, 7 not made")


DRIVER = """\
import sys

sys.path.insert(0, {here!r})

import check
import processes

if __name__ == "__main__":
    processes.PRELOADED, processes.GRACE, check.LEAST = [], 0.5, {least!r}
    check.MACHINE = check.Part("machine", {place!r} + "/machine.py", 0)
    check.PARTS[:] = [check.Part(name, {place!r} + f"/{{name}}.py", 1, checks=name != "measures") for name in {names!r}]
    sys.exit(check.main())
"""

REPORT = "import sys\nsys.path.insert(0, {here!r})\nimport part\noptions, report = part.start({name!r})\n"

PLANTED = {
    "fails": 'report.check("sums", False, "1 + 1 is 3")',
    "crashes": 'report.figure("half", 1, "s")\nprint("on the way")\nraise ValueError("no way")',
    "hangs": (
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print(subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(99)'], start_new_session=True).pid)\n"
        "time.sleep(99)"
    ),
    "measures": 'report.figure("half", 2, "s")\nimport time\ntime.sleep(99)',
    "quick": 'report.figure("half", 1, "s")',
    "lacks": "import no_such_library",
    "broken": "import sslkit.no_such_module",
    "silent": "",
    "works": 'with report.attempt("odd"):\n    raise ValueError("odd")\nreport.check("sums", True)',
}
NO_DEVICE = "raise SystemExit('no device')\n"


def planted(folder, names, machine="", minutes="0.5", least=2.0):
    """Run planted parts."""
    for name in names:
        (folder / f"{name}.py").write_text(REPORT.format(name=name, here=str(HERE)) + PLANTED[name])
    (folder / "machine.py").write_text(
        REPORT.format(name="machine", here=str(HERE)) + machine + '\nreport.figure("fingers", 10, "")\n'
    )
    (folder / "driver.py").write_text(DRIVER.format(here=str(HERE), place=str(folder), names=list(names), least=least))
    code, said, written = run([folder / "driver.py", "--device", "cpu", "--minutes", minutes], folder / "out")
    return code, said, [(r["part"], r["name"], r["passed"], r["detail"]) for r in written["results"][1:]]


def runs(pid):
    """Return whether a process has not ended; one that nobody has asked about still has an entry."""
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_part_that_goes_wrong_costs_itself_alone(tmp_path):
    begin = time.monotonic()
    code, said, results = planted(tmp_path, PLANTED, minutes="0.3")
    assert code == 1
    assert time.monotonic() - begin < 60 * 0.3
    (crash,) = [result for result in results if result[:2] == ("crashes", "ends well")]
    assert crash[3].startswith("code 1: ")
    assert crash[3].endswith("ValueError: no way")
    assert [result[:3] for result in results] == [
        ("fails", "sums", False), ("crashes", "half", None), ("crashes", "ends well", False),
        ("hangs", "ends in time", False), ("measures", "half", None), ("measures", "ends in time", None),
        ("quick", "half", None), ("lacks", "all of it", None), ("broken", "ends well", False),
        ("silent", "reports something", False), ("works", "odd", False), ("works", "sums", True),
    ]  # fmt: skip
    assert ("lacks", "all of it", None, "skipped: needs no_such_library") in results
    assert ("works", "odd", False, "ValueError: odd") in results
    child = next(int(line) for line in said.splitlines() if line.isdecimal())
    assert not runs(child)
    assert said.splitlines()[-1].startswith("1 checks passed, 6 failed, 2 not made")


@pytest.mark.parametrize(("names", "expected"), [(["lacks", "quick"], 0), (["lacks"], 2)])
def test_figures_and_skipped_checks_do_not_fail(tmp_path, names, expected):
    code, _, results = planted(tmp_path, names)
    assert code == expected
    assert results[0] == ("lacks", "all of it", None, "skipped: needs no_such_library")


def test_what_cannot_use_the_device_after_a_fork_starts_afresh(tmp_path):
    code, said, results = planted(
        tmp_path, ["works"], "import multiprocessing\nif multiprocessing.parent_process():\n    " + NO_DEVICE
    )
    assert code == 1
    assert said.count("machine, at most") == 2
    assert [result[:3] for result in results] == [("works", "odd", False), ("works", "sums", True)]


def test_without_a_device_nothing_is_measured(tmp_path):
    code, said, _ = planted(tmp_path, ["works"], NO_DEVICE)
    assert code == 2
    assert "works, at most" not in said
    assert said.splitlines()[-1].startswith("nothing can be measured on cpu here")


def test_parts_without_time_are_not_started(tmp_path):
    code, _, results = planted(tmp_path, ["works", "fails"], least=99.0)
    assert code == 2
    assert {result[3] for result in results} == {"skipped: no time left"}


def test_a_part_that_there_is_not(module, capsys):
    with pytest.raises(SystemExit, match="2"):
        module("check").main(["--only", "views,voews"])
    assert "no part 'voews'. Choices: tests, recipes, " in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:called a synchronizing")
def test_waits_are_counted_by_the_line_that_waits(module, tmp_path):
    waits, part = module("synchronization"), module("part")
    words = [*part.unmeasured("cpu", 16, 5), "--optimization.batch_size", "8", "--runtime.log_every", "100"]
    run = module("bench_gpu").build_run(waits.Watched, "dino-cifar10-tiny", words, tmp_path / "run")
    make = run.built.views.make

    def waiting(*words):
        warnings.warn("called a synchronizing CUDA operation", stacklevel=1)
        return make(*words)

    run.built.views.make = waiting
    run.execute()
    # Not the first two, nor the last, which is logged.
    assert run.watched == 2
    ((place, count),) = run.places.items()
    assert place.startswith("trainer.py:")
    assert ".make(" in place
    assert count == 2


def test_other_warnings_stay(module, recwarn):
    places = Counter()
    with module("synchronization").noticed(places, torch.device("cpu")):
        warnings.warn("something else", stacklevel=1)
    assert [str(each.message) for each in recwarn] == ["something else"]
    assert not places


ROWS = [
    {"step": step, "loss": loss, "skipped_steps": skipped}
    for step, loss, skipped in [(1, 2.0, 1), (20, 3.0, 2), (40, 1.0, 2)]
]


@pytest.mark.parametrize(
    ("precision", "change", "exact", "moved", "passes"),
    [
        ("fp16", {}, 2.01, True, True),
        ("fp16", {"skipped_steps": 3}, 2.01, True, False),
        ("bf16", {}, 2.01, True, False),
        ("fp16", {"loss": None}, 2.01, True, False),
        ("fp16", {}, 2.5, True, False),
        ("fp16", {}, 2.01, False, False),
    ],
)
def test_what_a_recipe_must_show(module, precision, change, exact, moved, passes):
    before, after = nn.Linear(2, 2), nn.Linear(2, 2)
    if not moved:
        after.load_state_dict(before.state_dict())
    recipe = SimpleNamespace(build_networks=lambda seed: (before, None))
    branch, record = SimpleNamespace(backbone=after), SimpleNamespace(precision=precision)
    run = SimpleNamespace(built=SimpleNamespace(seed=0), model=SimpleNamespace(student=branch), record=record)
    rows = [*ROWS[:-1], ROWS[-1] | change]
    assert module("tiny_recipes").judge(recipe, run, rows, exact)[0] is passes


def test_runs_are_compared_bit_for_bit(module, tmp_path):
    for name, last in (("a", 1.0), ("b", 1.0), ("c", 1.0 + 1e-15)):
        folder = tmp_path / name / "checkpoints" / "step-000000002"
        folder.mkdir(parents=True)
        save_file(
            {"one": torch.ones(2), "two": torch.tensor([last], dtype=torch.float64)}, folder / "state.safetensors"
        )
        (folder / "state.json").write_text("{}")
        (tmp_path / name / "metrics.jsonl").write_text(
            json.dumps({"step": 2, "loss": 1.0, "images_per_second": len(name)}) + "\n"
        )
    compare = module("resume").compare
    assert compare(tmp_path / "a", tmp_path / "b") == (True, "4 of 4 equal")
    assert compare(tmp_path / "a", tmp_path / "c") == (False, "3 of 4 equal, two")


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0, "0"), (12345.6, "12,346"), (12.34, "12.3"), (1.234, "1.23"), (0.1234, "0.123"), (1e-5, "1.0e-05")],
)
def test_numbers(module, value, shown):
    assert module("part").number(value) == shown
