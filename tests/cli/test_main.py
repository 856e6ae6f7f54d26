"""The program: fast where nothing is computed, one message and exit code 2 for every mistake."""

import io
import subprocess
import sys
from pathlib import Path

import pytest

import sslkit
from sslkit import plugins
from sslkit.cli import main as program
from sslkit.cli.main import COMMANDS, main
from sslkit.recipe import load

TINY = str(Path(__file__).parents[1] / "tiny_parts.py")


def test_what_computes_nothing_imports_nothing_heavy():
    words = [["--help"], ["list"], ["list", "losses"], ["list", "recipes"], ["plugins"], ["--version"]]
    words += [[command, "--help"] for command in COMMANDS]
    source = f"""
import sys
from sslkit.cli.main import main
for words in {words!r}:
    assert main(words) == 0, words
heavy = {{"torch", "torchvision", "timm", "kornia", "datasets", "accelerate", "jsonargparse", "sklearn", "matplotlib"}}
sys.exit(" ".join(sorted(heavy & set(sys.modules))) or 0)
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_what_needs_pytorch_says_so_before_it_is_imported(tmp_path):
    (tmp_path / "mine.py").write_text("import torch\n")
    commands = [["train", "quickstart"], ["train", "--method.loss.help"], ["explain", "quickstart"]]
    commands += [["evaluate", "knn", "raw-pixels"], ["evaluate", "knn", "--help"], ["list", "losses", "CrossEntropy"]]
    commands += [["export", "run"], ["doctor", "run"], ["schema"], ["list", "--plugin", str(tmp_path / "mine.py")]]
    source = f"""
import sys
from sslkit.cli.main import main
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name == "torch":
            raise KeyboardInterrupt
sys.meta_path.insert(0, NoTorch())
for words in {commands!r}:
    assert main(words) == 130, words
"""
    done = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "loading PyTorch ...\nsslkit: stopped\n" * len(commands))


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    assert main([]) == 2
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.endswith(f"sslkit {sslkit.__version__}\n")


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help_fits_into_80_columns(command, monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main([*filter(None, [command]), "--help"]) == 0
    assert [line for line in capsys.readouterr().out.splitlines() if len(line) > 80] == []


def test_an_error_is_wrapped_at_words_in_a_terminal_and_nowhere_else(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "30")
    assert main(["trian"]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert main(["trian"]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line.rstrip() for line in lines[:2]] == ["sslkit: unknown command", "'trian'. Did you mean 'train'?"]
    program._print_error("copy:\n  " + "word " * 20 + "end")
    assert capsys.readouterr().err.splitlines() == ["copy:", "  " + "word " * 20 + "end"]


@pytest.mark.parametrize("command", ["train", "evaluate", "explain"])
def test_a_command_alone_shows_its_help(command, capsys):
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert main([command]) == 2
    assert capsys.readouterr().out == shown
    assert f"sslkit {command} " in shown


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "unknown command 'trian'. Did you mean 'train'?"),
        (["train", "--seed", "1"], "sslkit train takes one RECIPE, a YAML file or a name, not nothing. Choices: byol-"),
        (["list", "recipes", "quickstart"], "what a recipe does: sslkit explain quickstart"),
        (
            ["explain", "quickstart", "--method.backbone", "{TimmBackbone: {name: vit_tiny_patch16_224}}"],
            "it is in model_args, which an override of the name alone leaves as they are in the recipe; "
            "--method.backbone.model_args null drops them",
        ),
        (["train", "quickstat"], "unknown recipe 'quickstat'. Did you mean 'quickstart'?"),
        (["train", "dino"], "unknown recipe 'dino'. Did you mean 'dino-"),
        (["train", "a", "b"], "sslkit train takes one RECIPE, a YAML file or a name, not 'a' and 'b'"),
        (["train", "RECIPE", "--seed"], "--seed needs a value"),
        (["train", "RECIPE", "--run-dir"], "--run-dir needs a value"),
        (["train", "RECIPE", "--method.techer", "x"], "Did you mean 'teacher'?"),
        (["train", "RECIPE", "--method", "{<<: {}}"], "--method '{<<: {}}': the merge key << is not read"),
        (["train", "--method.techer.help"], "unknown key 'method.techer'. Did you mean 'teacher'?"),
        (["train", "--seed.help", "EMA"], "seed is a whole number, not a component"),
        (["train", "--method.loss.help", "CrossEntrop"], "Did you mean 'CrossEntropy'?"),
        (
            ["explain", "RECIPE", "--num-images", "many"],
            "--num-images must be a whole number of at least 1",
        ),
        (["explain", "RECIPE", "--views.size", "9"], "views.size: 9 pixels are no multiple"),
        (["list", "lossses"], "unknown kind of component 'lossses'. Did you mean 'losses'?"),
        (
            ["list", "losses", "Cross", "Entropy"],
            "takes a KIND and a NAME, not 'losses' and 'Cross' and 'Entropy'",
        ),
        (["plugins", "new"], "sslkit plugins takes no argument"),
        (["list", "--plugin"], "--plugin needs a value"),
        (["list", "--plugin", "none.py"], "--plugin none.py: there is no such file"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(words, said, recipe, capsys):
    words = [recipe if word == "RECIPE" else word for word in words]
    extra = ["--plugin", TINY] if recipe in words else []
    assert main([*extra, *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert err.startswith("sslkit: ")
    assert err.count("\n") == 1


def test_a_traceback_comes_when_it_is_asked_for(monkeypatch, capsys):
    monkeypatch.setenv(program.DEBUG, "1")
    assert main(["train", "quickstat"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_a_path_that_the_system_refuses_is_one_message(capsys):
    assert main(["train", "quickstart", "--data", "x" * 300]) == 2
    assert capsys.readouterr().err.endswith("File name too long (SSLKIT_DEBUG=1 shows all)\n")


@pytest.mark.parametrize("words", [["list"], ["list", "collapse-operators", "Centering"], ["plugins"], ["nonsense·"]])
def test_a_terminal_of_few_characters_is_enough(words, monkeypatch):
    streams = {name: io.TextIOWrapper(io.BytesIO(), encoding="ascii") for name in ("stdout", "stderr")}
    for name, stream in streams.items():
        monkeypatch.setattr(sys, name, stream)
    code = main(words)
    written = b""
    for stream in streams.values():
        stream.flush()
        written += stream.buffer.getvalue()
    assert (code, b"\\xb7" in written or b"\\xa7" in written) == (2 if words == ["nonsense·"] else 0, True)


def test_a_stopped_command_says_so(monkeypatch, capsys):
    def stop(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "_run", stop)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "sslkit: stopped\n"


def test_the_module_is_the_program():
    source = (Path(sslkit.__file__).parent / "__main__.py").read_text()
    assert "from sslkit.cli.main import main" in source


def test_python_users_load_the_same_recipe(recipe):
    from sslkit import plugins

    with plugins.using([TINY]):
        assert load(recipe, ["--seed", "3"]).build().seed == 3


def test_an_unknown_name_is_told_with_the_plugins_that_did_not_load(recipe, monkeypatch, capsys):
    failed = plugins.Plugin("broken", "broken 3.1", error="too early")
    monkeypatch.setattr(plugins, "active", lambda: plugins.Plugins([failed]))
    assert main(["list", "losses", "Gone"]) == 2
    assert "(not here: broken, which did not load; sslkit plugins says why)" in capsys.readouterr().err
