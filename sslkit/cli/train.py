"""``sslkit train``: train a recipe."""

import shlex
from argparse import Namespace
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from rich.console import Console

from sslkit.cli.arguments import add_recipe, plugin_words
from sslkit.cli.parser import CommandParser, path
from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError
from sslkit.plugins import active
from sslkit.progress import loading, working
from sslkit.registry import class_fields

if TYPE_CHECKING:
    from sslkit.training.trainer import Trainer

OVERRIDES = (
    ("--SECTION.KEY VALUE", "set any key of the recipe, as YAML; --data FOLDER sets where images are read"),
    ("--SECTION.KEY.help [NAME]", "explain what a key takes, or one component that fits there"),
)

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
sslkit train quickstart --optimization.epochs 20 --runtime.threads 1
sslkit train quickstart --method.teacher PreviousEpoch
sslkit train quickstart --method.teacher.momentum 0.99
sslkit train quickstart --method.collapse '{SinkhornKnopp: {num_iters: 5}}'
sslkit train --method.collapse.help Centering"""


def add_arguments(parser: CommandParser) -> None:
    """Declare what the command takes."""
    add_recipe(parser, "train a recipe: a name (sslkit list recipes) or a YAML file", EXAMPLES, key_help=True)
    options = parser.add_options()
    options.add_argument("--run-dir", metavar="DIR", type=path, help="run folder; runs/RECIPE/DATE-TIME without it")
    options.add_argument("--resume", action="store_true", help="continue the run in --run-dir, or start it")
    options.add_argument("--print-config", action="store_true", help="print the resolved recipe and stop")
    parser.add_table("Recipe keys", "", lambda: OVERRIDES)
    parser.add_table("Keys by section", "sslkit train --method.help explains those of one", _keys)


def run(args: Namespace) -> int:
    """Train a recipe, print it resolved, or explain what a key takes."""
    if args.key_help:
        return _key_help(args.key_help)
    with loading():
        from sslkit.recipe.loading import load

    recipe = load(args.recipe, args.overrides)
    if args.print_config:
        print(recipe.to_yaml(), end="")
        return 0
    if args.resume and args.run_dir is None:
        raise SSLKitError("--resume needs --run-dir DIR: the folder of the run to go on with, or to start")
    with working("preparing the run", plain=False):
        from sslkit.launch import train

    return _report(train(recipe, args.run_dir, args.resume))


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
    with loading():
        from sslkit.cli.describe import describe, describe_key
        from sslkit.recipe.keys import kind_at

    key, registry = words[0].removeprefix("--").removesuffix(".help"), active().registry
    if len(words) > 1:
        describe(Screen(), kind_at(key), words[1], registry)
    else:
        describe_key(Screen(), key, registry)
    return 0


def _keys() -> Iterator[tuple[str, str]]:
    for name, cls in SECTIONS.items():
        yield name, " ".join(class_fields("sslkit.recipe.sections", cls)) if cls else ""
