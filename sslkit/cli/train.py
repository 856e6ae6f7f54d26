"""``sslkit train``: run a recipe."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from sslkit.cli.arguments import plugin_words, read_recipe_arguments
from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError
from sslkit.plugins import active
from sslkit.registry import class_fields

if TYPE_CHECKING:
    from sslkit.training.trainer import Trainer

OPTIONS = {
    "--run-dir DIR": "where the run is written; runs/<recipe>/<date-time> without it",
    "--resume": "go on with the run in --run-dir, or start it",
    "--print_config": "print the resolved recipe and stop",
    "--plugin FILE": "also offer the components of this Python file",
    "--SECTION.KEY VALUE": "set any key of the recipe, as YAML; --data FOLDER sets where images are read",
    "--SECTION.KEY.help [NAME]": "say what a key takes, or one component that fits there",
}

SECTIONS = {
    "method": "Method",
    "views": "",
    "data": "Data",
    "optimization": "Optimization",
    "precision": "",
    "seed": "",
    "runtime": "Runtime",
    "evaluation": "Evaluation",
}

EXAMPLES = """\
sslkit train quickstart --method.teacher PreviousEpoch --optimization.epochs 20
sslkit train quickstart --method.teacher.momentum 0.99
sslkit train quickstart --method.collapse '{SinkhornKnopp: {num_iters: 5}}'
sslkit train --method.collapse.help Centering"""


def run(argv: Sequence[str]) -> int:
    """Train a recipe, print it resolved, or say what a key takes."""
    if any(word in ("-h", "--help") for word in argv):
        _help()
        return 0
    asked = [i for i, word in enumerate(argv) if word.startswith("--") and word.endswith(".help")]
    if asked:
        return _key_help(argv[asked[0] :])
    words = read_recipe_arguments(argv, "train", options=("--run-dir",), flags=("--resume", "--print-config"))
    from sslkit.recipe import load

    recipe = load(words.recipe, words.overrides)
    if "--print-config" in words.options:
        print(recipe.to_yaml(), end="")
        return 0
    if "--resume" in words.options and "--run-dir" not in words.options:
        raise SSLKitError("--resume needs --run-dir DIR: the folder of the run to go on with, or to start")
    from sslkit.launch import train

    folder = words.options.get("--run-dir")
    done = train(recipe, Path(folder) if folder else None, "--resume" in words.options)
    return _report(done)


def _report(done: "Trainer") -> int:
    """Print what a run measured and where it lies; for an interrupted one, how to go on."""
    from sslkit.cli.results import show_results

    path, step, total = done.folder.path, done.clock.step, done.clock.total_steps
    if not done.is_main:
        return 130 if done.interrupted else 0
    console = Console(highlight=False)
    if done.interrupted:
        console.print(f"Stopped after step {step} of {total}; everything is saved. To go on:", soft_wrap=True)
        words = ["sslkit", "train", str(path / "recipe.yaml"), "--run-dir", str(path), "--resume", *plugin_words()]
        console.print(f"  {shlex.join(words)}", soft_wrap=True, markup=False)
        return 130
    test = done.built.data.test
    labels = None if test is None else test.labels
    show_results(done.results, None if labels is None else len(labels.unique()), console)
    console.print(f"Run folder: {path}", soft_wrap=True)
    if (picture := path / "summary.png").exists():
        console.print(f"Picture:    {picture}", soft_wrap=True)
    return 0


def _key_help(words: Sequence[str]) -> int:
    from sslkit.cli.describe import describe, describe_key
    from sslkit.recipe.keys import kind_at

    key, registry = words[0].removeprefix("--").removesuffix(".help"), active().registry
    if len(words) > 1:
        describe(Screen(), kind_at(key), words[1], registry)
    else:
        describe_key(Screen(), key, registry)
    return 0


def _help() -> None:
    keys = (
        (name, " ".join(class_fields("sslkit.recipe.sections", cls)) if cls else "") for name, cls in SECTIONS.items()
    )
    Screen().help(
        "sslkit train RECIPE",
        "RECIPE is a name (sslkit list recipes) or a YAML file",
        ("Options", "", OPTIONS.items()),
        ("Keys", "sslkit train --method.help says what each means", keys),
        examples=EXAMPLES,
    )
