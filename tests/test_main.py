"""``python -m sslkit`` in a folder from elsewhere: none of its files is imported."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

NAMES = ["typing", "pathlib", "argparse", "json", "yaml", "rich", "torch", "numpy", "theirs", "sitecustomize", "pluggy"]


@pytest.fixture
def hostile(tmp_path):
    """Return a folder of modules that leave a mark when they are imported, and of a recipe that names one."""
    for name in NAMES:
        (tmp_path / f"{name}.py").write_text(f"open('imported-{name}', 'w')\nraise SystemExit(0)\n")
    (tmp_path / "recipe.yaml").write_text("base: quickstart\nmethod: {loss: theirs.Loss}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["list", "losses"], 0, "CrossEntropy"),
        (["doctor", "."], 2, "sslkit: . holds a run without a row yet"),
        (["train", "recipe.yaml"], 2, "sslkit: method.loss: no installed plugin offers 'theirs.Loss'"),
        (["train", "recipe.yaml", "--allow", "theirs"], 2, "method.loss: cannot import theirs.Loss"),
        (["explain", "quickstart", "--method.loss", "{class_path: theirs.Loss}"], 2, "no installed plugin offers"),
    ],
)
def test_a_foreign_folder_runs_nothing(words, code, said, hostile):
    done = subprocess.run(
        [sys.executable, "-m", "sslkit", *words], cwd=hostile, capture_output=True, text=True, check=False
    )
    assert [*hostile.glob("imported-*")] == []
    assert said in done.stdout + done.stderr
    assert done.returncode == code


def test_a_checkout_in_the_working_directory_is_the_one_that_runs(tmp_path):
    (tmp_path / "sslkit/cli").mkdir(parents=True)
    source = Path(__file__).parents[1] / "sslkit/__main__.py"
    (tmp_path / "sslkit/__main__.py").write_text(source.read_text())
    (tmp_path / "sslkit/__init__.py").write_text("")
    (tmp_path / "sslkit/cli/__init__.py").write_text("")
    (tmp_path / "sslkit/cli/main.py").write_text("import beside\nmain = lambda: beside.CODE\n")
    (tmp_path / "beside.py").write_text("CODE = 7\n")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONSAFEPATH"}
    done = subprocess.run([sys.executable, "-m", "sslkit"], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == 7
