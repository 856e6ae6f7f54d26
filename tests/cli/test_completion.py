"""The scripts complete commands, options, names and files; bash's is really run."""

import json
import subprocess
import sys

import pytest

from sslkit.cli.completion import SHELLS
from sslkit.cli.main import COMMANDS, main
from sslkit.recipe.files import builtin_recipes


@pytest.fixture(scope="module")
def script(tmp_path_factory):
    folder = tmp_path_factory.mktemp("completion")
    done = subprocess.run(
        [sys.executable, "-m", "sslkit", "completion", "bash"], capture_output=True, text=True, check=True
    )
    (folder / "script").write_text(done.stdout)
    for name in ("results", "mine.yaml"):
        (folder / name).mkdir() if name == "results" else (folder / name).touch()
    return folder / "script"


@pytest.fixture
def complete(script):
    """Return a function that gives what bash offers for the last of these words."""

    def complete(*words):
        source = f"""
source {script}
COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=()
$(complete -p sslkit | sed 's/.*-F \\([^ ]*\\).*/\\1/')
printf '%s\\n' "${{COMPREPLY[@]}}"
"""
        command = ["bash", "-c", source, "bash", "sslkit", *words]
        done = subprocess.run(command, cwd=script.parent, capture_output=True, text=True, check=True)
        return {*done.stdout.split()}

    return complete


def test_commands(complete):
    assert complete("") == {*COMMANDS}
    assert complete("ex") == {"export", "explain"}


def test_options(complete):
    assert complete("train", "quickstart", "--r") == {"--run-dir", "--resume"}
    assert complete("doctor", "--") == {"--figure", "--plugin", "--allow", "--help"}
    assert {"--network", "--limit"} <= complete("evaluate", "knn", "results", "--")


def test_names_files_and_folders(complete):
    assert complete("train", "dino-cifar") == {name for name in builtin_recipes() if name.startswith("dino-cifar")}
    assert complete("explain", "m") == {"mine.yaml"} | {name for name in builtin_recipes() if name.startswith("m")}
    assert complete("evaluate", "k") == {"knn"}
    assert complete("list", "los") == {"losses"}
    assert complete("export", "re") == {"results"}
    assert complete("export", "results", "--to", "") == {"timm", "hf", "onnx", "dino"}
    assert {"results", "mine.yaml"} <= complete("evaluate", "knn", "")
    assert complete("train", "quickstart", "--run-dir", "") == {"results"}


@pytest.mark.parametrize("shell", SHELLS)
def test_every_shell_has_a_script(shell, capsys):
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    assert all(json.dumps(name).strip('"') in script for name in ("train", "run-dir", "quickstart", "knn"))


def test_an_unknown_shell_is_refused(capsys):
    assert main(["completion", "bsh"]) == 2
    assert "Did you mean 'bash'?" in capsys.readouterr().err
