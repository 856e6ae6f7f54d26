"""The program ``sslkit``: finds the command, turns a user's mistake into one message."""

import importlib
import os
import sys
import traceback
from collections.abc import Sequence

from sslkit import __version__, plugins
from sslkit.cli.arguments import take_option
from sslkit.cli.screen import Screen
from sslkit.errors import DEBUG, SSLKitError, UnknownName

COMMANDS = {
    "train": "train a recipe",
    "evaluate": "measure a frozen backbone",
    "export": "hand a run's backbone to timm, the Hugging Face Hub or ONNX",
    "doctor": "say what became of a run, why, and what to change",
    "explain": "say what a recipe will do, without running it",
    "list": "show the components and recipes there are, and what each one takes",
    "plugins": "show who offers components, and what failed to load",
}

EXAMPLES = """\
sslkit train quickstart
sslkit train dino-vit-small --data ~/images --optimization.epochs 100
sslkit list collapse-operators Centering
sslkit evaluate knn RUN_FOLDER --network teacher"""

NEED_WORDS = ("train", "evaluate", "export", "doctor", "explain")
"""Commands that do nothing by themselves: alone they show their help."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 2 for a mistake of the user's; 1 where a run could not go on; 130 where the user stopped it.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        return _run(words)
    except SSLKitError as error:
        if os.environ.get(DEBUG):
            traceback.print_exc()
        print(f"sslkit: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("sslkit: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `sslkit list | head`: the reader has seen enough; Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def _run(words: list[str]) -> int:
    files = take_option(words, "--plugin")
    command, rest = (words[0], words[1:]) if words else ("", [])
    if command in ("", "-h", "--help", "help"):
        _help()
        return 0 if command else 2
    if command in ("-V", "--version"):
        print(f"sslkit {__version__}")
        return 0
    if command not in COMMANDS:
        raise UnknownName("command", command, COMMANDS)
    with plugins.using(files):
        run = importlib.import_module(f"sslkit.cli.{command}").run
        if not rest and command in NEED_WORDS:
            run(["--help"])
            return 2
        return int(run(rest))


def _help() -> None:
    screen = Screen()
    purpose = "self-supervised learning for images as one student-teacher step"
    screen.help("sslkit", purpose, ("Commands", "sslkit COMMAND --help says more", COMMANDS.items()), examples=EXAMPLES)
    screen.gap()
    screen.heading("Everywhere")
    screen.columns([("--plugin FILE", "also offer the components of this Python file, for one command")])
