"""The tested set: the exact versions that `uv run` installs, which pyproject.toml holds between two comments.

It covers extras and build requirements too: uv resolves them all before it installs anything.

python3 .ci/tested_set.py renew          resolve the newest versions and write them there
python3 .ci/tested_set.py lift FOLDER    copy the checkout without them, to run it on other versions
"""

import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BEGIN = "# tested set: renewed by `python3 .ci/tested_set.py renew`\n"
END = "# end of the tested set\n"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
"""Versions of Python for which the set must have wheels."""


def renew() -> None:
    """Write the newest versions that go together into pyproject.toml, one of each for all platforms and Pythons."""
    with tempfile.TemporaryDirectory() as name:
        copy = lift(Path(name) / "copy")
        _uv("lock", "--fork-strategy", "fewest", cwd=copy)
        options = ["--no-header", "--no-annotate"]
        everything = ["--frozen", "--all-extras", "--all-groups", "--no-emit-workspace", "--no-hashes"]
        pins = _uv("export", *everything, *options, cwd=copy).splitlines()
        projects = [copy / "pyproject.toml", *copy.glob("plugins/*/pyproject.toml")]
        build = {each for file in projects for each in tomllib.loads(file.read_text())["build-system"]["requires"]}
        universal = ["--universal", "--python-version", PYTHONS[0], *options]
        build_pins = _uv("pip", "compile", *universal, "-", cwd=copy, text="\n".join(build)).splitlines()
        for python in PYTHONS:
            wheels = ["--no-deps", "--only-binary", ":all:", "--python-platform", "linux", "--python-version", python]
            _uv("pip", "compile", *wheels, *options, "-", cwd=copy, text="\n".join(pins + build_pins))
    block = _array("constraint-dependencies", pins) + _array("build-constraint-dependencies", build_pins)
    file = ROOT / "pyproject.toml"
    before, _, after = split(file.read_text(encoding="utf-8"))
    file.write_text(before + BEGIN + block + END + after, encoding="utf-8")


def lift(folder: Path) -> Path:
    """Copy what git knows or would take of this checkout, without the tested set, into a new folder; return that."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    files = subprocess.run(listed, cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for file in sorted({*files.split("\0")} - {""}):
        if (ROOT / file).is_file():
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / file, folder / file)
    before, _, after = split((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (folder / "pyproject.toml").write_text(before + after, encoding="utf-8")
    return folder


def split(text: str) -> tuple[str, str, str]:
    """Return what stands before the tested set, the set, and what stands after it."""
    before, begin, rest = text.partition(BEGIN)
    block, end, after = rest.partition(END)
    if not (begin and end):
        raise SystemExit(f"pyproject.toml has no lines {BEGIN!r} and {END!r}")
    return before, block, after


def _array(key: str, pins: Iterable[str]) -> str:
    """Write requirements as an array of TOML; a marker stays where it tells two versions of a package apart."""
    pins = sorted(pins)
    versions = Counter(pin.partition("==")[0] for pin in pins)
    lines = [pin if versions[pin.partition("==")[0]] > 1 else pin.partition(";")[0].strip() for pin in pins]
    return f"{key} = [\n" + "".join(f'    "{line}",\n' for line in lines) + "]\n"


def _uv(*words: str, cwd: Path, text: str | None = None) -> str:
    words = ("--no-python-downloads", *words)
    run = subprocess.run(["uv", *words], cwd=cwd, input=text, stdout=subprocess.PIPE, text=True, check=False)
    if run.returncode:
        raise SystemExit(f"uv {' '.join(words)} failed")  # it has said why
    return run.stdout


if __name__ == "__main__":
    match sys.argv[1:]:
        case ["renew"]:
            renew()
        case ["lift", folder]:
            lift(Path(folder))
        case _:
            raise SystemExit(__doc__)
