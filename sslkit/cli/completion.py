"""``sslkit completion``: a script that completes commands, options and names in a shell."""

import argparse
from argparse import Namespace
from collections.abc import Sequence
from typing import Any

from sslkit.cli.evaluate import evaluator_names
from sslkit.cli.list import kind_names
from sslkit.cli.main import program_with_commands
from sslkit.cli.parser import CommandParser
from sslkit.recipe.files import builtin_recipes

SHELLS = {
    "bash": 'in ~/.bashrc:  eval "$(sslkit completion bash)"',
    "zsh": "as a file _sslkit in a folder of $fpath, before compinit runs",
    "tcsh": "in ~/.tcshrc:  sslkit completion tcsh > ~/.sslkit.tcsh; source ~/.sslkit.tcsh",
}

EXAMPLES = """\
eval "$(sslkit completion bash)"
sslkit completion zsh > ~/.zfunc/_sslkit"""

FOLDERS = ("DIR", "FOLDER", "RUN", "PATH")
FILES = ("FILE", "MODEL")
"""Arguments for which a shell offers files and folders."""


def add_arguments(parser: CommandParser) -> None:
    """Declare what the command takes."""
    parser.describe("one SHELL", "a script that completes commands, options and names in a shell", EXAMPLES)
    parser.add_argument("shell", metavar="SHELL", choices=tuple(SHELLS), help=", ".join(SHELLS))
    parser.add_table("Shells", "where the script belongs", SHELLS.items)


def run(args: Namespace) -> int:
    """Print the script."""
    import shtab

    parser = program_with_commands()
    for command in parser.commands().values():
        for action in command.arguments():
            _complete(action)
    print(shtab.complete(parser, args.shell))
    return 0


def _complete(action: argparse.Action) -> None:
    """Choose what a shell offers for an argument: names that are known now, files, or folders."""
    import shtab

    names = {"EVALUATOR": evaluator_names, "KIND": kind_names}
    if action.metavar == "RECIPE":
        action.complete = _names_or_files("recipe", [*builtin_recipes()])  # type: ignore[attr-defined]
    elif action.metavar in names:
        action.choices = [*names[action.metavar]()]
    elif action.metavar in FILES:
        action.complete = shtab.FILE  # type: ignore[attr-defined]
    elif action.metavar in FOLDERS:
        action.complete = shtab.DIRECTORY  # type: ignore[attr-defined]


def _names_or_files(kind: str, names: Sequence[str]) -> dict[str, Any]:
    """Return what shtab takes for an argument that is a name or a file; zsh and tcsh offer the names alone."""
    listed, function = " ".join(names), f"_sslkit_{kind}"
    bash = f'{function}() {{ compgen -W "{listed}" -- "$1"; compgen -f -- "$1"; }}'
    return {"bash": function, "zsh": f"({listed})", "tcsh": f"({listed})", "preamble": {"bash": bash}}
