"""The program: fast where nothing is computed, one message and exit code 2 for every mistake."""

import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

import sslkit
from sslkit import launch
from sslkit.cli import main as program
from sslkit.cli import train as train_command
from sslkit.cli.main import COMMANDS, main
from sslkit.hookspecs import KINDS
from sslkit.plugins import Plugin, Plugins
from sslkit.recipe import load
from sslkit.recipe.files import builtin_recipes
from sslkit.recipe.sections import BuiltRecipe, Evaluation
from sslkit.registry import Entry, Registry

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


def test_help_names_every_command(capsys):
    assert main(["--help"]) == 0
    out = capsys.readouterr().out
    assert all(command in out for command in COMMANDS)
    assert main([]) == 2
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.endswith(f"sslkit {sslkit.__version__}\n")


@pytest.mark.parametrize("command", ["train", "evaluate", "explain"])
def test_a_command_alone_shows_its_help(command, capsys):
    assert main([command, "--help"]) == 0
    shown = capsys.readouterr().out
    assert main([command]) == 2
    assert capsys.readouterr().out == shown
    assert f"sslkit {command} " in shown


def test_list_at_80_columns_folds_no_word(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("recipes")
    assert "  Centering     softmax((logits - center) / temperature)" in re.sub(r"(?<=\w) {5,}", "     ", out)
    assert out.index("  quickstart ") < out.index("  quickstart-objects ")


def test_plugins_at_80_columns_folds_no_name(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    entries = [Entry("losses", f"a:{'Long' * 5}{i}", "some-plugin", "a-package-of-some-name 1.0") for i in range(4)]
    found = Plugins([Plugin("some-plugin", "a-package-of-some-name 1.0")], Registry(entries))
    monkeypatch.setattr("sslkit.cli.plugins.active", lambda: found)
    assert main(["plugins"]) == 0
    out = capsys.readouterr().out
    for word in ["a-package-of-some-name 1.0 · 4 components", *(entry.name for entry in entries)]:
        assert word in out


def test_list_shows_every_component_and_recipe(capsys):
    assert main(["list", "--plugin", TINY]) == 0
    out = capsys.readouterr().out
    for word in [
        *(kind.command for kind in KINDS),
        *builtin_recipes(),
        "CrossEntropy",
        "TinyHead",
        "A mean over pixels",
    ]:
        assert word in out, word
    assert "tiny_parts.py" in out


def test_list_shows_one_kind_and_one_component(capsys):
    assert main(["list", "collapse-operators"]) == 0
    out = capsys.readouterr().out
    assert "SinkhornKnopp" in out
    assert "CrossEntropy" not in out
    assert main(["list", "backbone", "TinyBackbone", "--plugin", TINY]) == 0
    out = capsys.readouterr().out
    assert "F, at least 1. (a whole number)" in out
    assert "from data.channels" in out
    assert main(["list", "callbacks", f"--plugin={TINY}"]) == 0


def test_plugins_shows_a_failure_with_its_traceback(tmp_path, monkeypatch, capsys):
    info = tmp_path / "broken-3.1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: broken\nVersion: 3.1\n")
    (info / "entry_points.txt").write_text("[sslkit]\nbroken = broken_plugin\n")
    (tmp_path / "broken_plugin.py").write_text("def early():\n    raise RuntimeError('too early')\nearly()\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert main(["plugins", "--plugin", TINY]) == 0
    out = capsys.readouterr().out
    for word in ["broken 3.1", "failed", "in early", "RuntimeError: too early", f"sslkit {sslkit.__version__}"]:
        assert word in out, word
    assert main(["list", "losses"]) == 0  # plugins found before the breakage
    assert main(["list", "losses", "--plugin", TINY]) == 0
    assert "not here: broken, which did not load" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "unknown command 'trian'. Did you mean 'train'?"),
        (["train", "--seed", "1"], "sslkit train takes one RECIPE, a YAML file or a name, not nothing. Choices: byol-"),
        (["list", "recipes", "quickstart"], "what a recipe does: sslkit explain quickstart"),
        (
            ["explain", "quickstart", "--method.backbone", "{TimmBackbone: {name: vit_tiny_patch16_224}}"],
            "it stands in model_args, which an override of the name alone leaves as the recipe has them; "
            "--method.backbone.model_args null drops them",
        ),
        (["train", "quickstat"], "unknown recipe 'quickstat'. Did you mean 'quickstart'?"),
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


def test_a_stopped_command_says_so(monkeypatch, capsys):
    def stop(words):
        raise KeyboardInterrupt

    monkeypatch.setattr(program, "_run", stop)
    assert main(["list"]) == 130
    assert capsys.readouterr().err == "sslkit: stopped\n"


def test_print_config_is_a_recipe_that_loads(recipe, tmp_path, capsys):
    assert main(["train", recipe, "--plugin", TINY, "--seed=7", "--print_config"]) == 0
    resolved = tmp_path / "resolved.yaml"
    resolved.write_text(capsys.readouterr().out)
    assert main(["train", str(resolved), "--plugin", TINY, "--print-config"]) == 0
    assert capsys.readouterr().out == resolved.read_text()
    assert "seed: 7" in resolved.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--method.help"], ["teacher", "required", "one of copy, independent"]),
        (["--method.loss.help"], ["CrossEntropy", "sslkit list losses NAME"]),
        (["--method.loss.help", "CrossEntropy"], ["temperature", "a number", "sslkit 0"]),
        (["--evaluation.evaluators.help"], ["KNN"]),
        (["--seed.help"], ["a whole number"]),
        (["--help"], ["--run-dir", "--resume", "lr_reference_batch", *(vars(Evaluation()))]),
    ],
)
def test_train_explains_its_keys(words, said, capsys):
    assert main(["train", *words]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in said)


def test_train_help_shows_every_section():
    from sslkit.cli.train import SECTIONS

    assert list(SECTIONS) == [name for name in BuiltRecipe.__dataclass_fields__]


def test_train_calls_the_loop(recipe, tmp_path, monkeypatch):
    calls = []

    def train(*arguments):
        calls.append(arguments)
        return SimpleNamespace(interrupted=len(calls) == 2)

    monkeypatch.setattr(launch, "train", train)
    monkeypatch.setattr(train_command, "_report", lambda done: 130 if done.interrupted else 0)
    words = ["train", recipe, "--plugin", TINY, "--seed", "3"]
    assert main(words) == 0
    assert main([*words, "--run-dir", str(tmp_path / "run"), "--resume"]) == 130
    (first, none, fresh), (_, folder, resume) = calls
    assert (first.root.at("seed"), none, fresh) == (3, None, False)
    assert (folder, resume) == (tmp_path / "run", True)


def test_formulas_stand_as_they_were_written_and_backticks_are_gone(monkeypatch, capsys):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list", "evaluators", "KNN"]) == 0
    out = capsys.readouterr().out
    lines = [line.rstrip() for line in out.splitlines()]
    first = lines.index("      similarity = cosine of frozen features, eval mode, no augmentation")
    assert lines[first + 1] == "      vote       = sum of exp(similarity / temperature) over the k nearest"
    assert main(["list", "heads", "DINOHead"]) == 0
    assert "`" not in out + capsys.readouterr().out


def test_the_module_is_the_program():
    source = (Path(sslkit.__file__).parent / "__main__.py").read_text()
    assert "from sslkit.cli.main import main" in source


def test_python_users_load_the_same_recipe(recipe):
    from sslkit import plugins

    with plugins.using([TINY]):
        assert load(recipe, ["--seed", "3"]).build().seed == 3
