"""The program ``sslkit``: finds the command, turns a user's mistake into one message."""

import argparse
import importlib
import io
import os
import sys
import traceback
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from types import ModuleType

from rich.console import Console
from rich.text import Text

from sslkit import __version__, plugins
from sslkit.cli.parser import HELP, CommandParser, take_option
from sslkit.errors import DEBUG, SSLKitError, UnknownName, shown
from sslkit.progress import loading, print_line, showing

COMMANDS = {
    "train": "train a recipe",
    "evaluate": "measure a frozen backbone",
    "export": "convert a run's backbone for timm, the Hugging Face Hub or ONNX",
    "doctor": "report whether a run learned, why not, and what to change",
    "explain": "report what a recipe will do, without running it",
    "list": "show the components and recipes there are, and what each one takes",
    "plugins": "show which plugins offer components, and which failed to load",
    "schema": "print a JSON schema of recipes, with which editors check and complete them",
    "completion": "print a script that completes commands and options in a shell",
}

EXAMPLES = """\
sslkit train quickstart
sslkit train dino-vit-small --data ~/images --optimization.epochs 100
sslkit list collapse-operators Centering
sslkit evaluate knn RUN_FOLDER --network teacher"""

PLUGIN, ALLOW = "--plugin", "--allow"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command.

    Returns:
        0; 2 for a mistake of the user's; 1 where a run could not go on; 130 where the user stopped it.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    _print_any_character()
    try:
        return _run(words)
    except SSLKitError as error:
        return _report(error)
    except KeyboardInterrupt:
        print("sslkit: stopped", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # `sslkit list | head`: the reader has seen enough; Python must not complain when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        # A path that the system refuses: too long, in a loop of links, on a device that is gone.
        where = "" if error.filename is None else f"{shown(str(error.filename))}: "
        return _report(SSLKitError(f"{where}{error.strerror or error} ({DEBUG}=1 shows all)"))
    except (Exception, SystemExit) as error:
        # Here, since it imports torch.
        from sslkit.checks.failures import failure_in

        if failure := failure_in(error):
            return _report(failure)
        raise


def _report(error: SSLKitError) -> int:
    """Print an error of the user's, with its traceback where that is asked for, and return its exit code."""
    if os.environ.get(DEBUG):
        traceback.print_exc()
    _print_error(f"sslkit: {error}")
    failed = [plugin.name for plugin in plugins.active().found if plugin.error]
    if failed and isinstance(error, UnknownName):
        _print_error(f"(not here: {', '.join(failed)}, which did not load; sslkit plugins says why)")
    return error.exit_code


def _print_any_character() -> None:
    """Escape what the terminal's encoding lacks, such as umlauts under LC_ALL=C, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def program() -> CommandParser:
    """Return the parser of the program, which knows the commands by name and purpose."""
    parser = CommandParser("sslkit")
    purpose = "self-supervised learning for images as one student-teacher step"
    parser.describe("a command", purpose, EXAMPLES)
    parser.add_table("Commands", "sslkit COMMAND --help explains one", lambda: [*COMMANDS.items()])
    options = parser.add_options("Everywhere")
    _add_common_options(options)
    options.add_argument("-V", "--version", action="store_true", help="print the version")
    return parser


def program_with_commands() -> CommandParser:
    """Return the parser of the program with those of all commands below it, for completion and documentation."""
    parser = program()
    commands = parser.add_subparsers(metavar="COMMAND")
    for name, purpose in COMMANDS.items():
        _declare(commands.add_parser(name, prog=f"sslkit {name}", help=purpose), name)
    return parser


def _declare(parser: CommandParser, command: str) -> ModuleType:
    """Declare the arguments of a command and return its module."""
    module = importlib.import_module(f"sslkit.cli.{command}")
    _add_common_options(parser.common)
    module.add_arguments(parser)
    return module


def _add_common_options(group: argparse._ArgumentGroup) -> None:
    """Declare the options that every command has; `main` takes them before the command is parsed."""
    text = "also offer the components of this Python file, for one command"
    group.add_argument(PLUGIN, metavar="FILE", action="append", help=text)
    text = "let recipes name classes of this installed module by dotted path, for one command"
    group.add_argument(ALLOW, metavar="MODULE", action="append", help=text)


@contextmanager
def _plugins(files: Sequence[str], allowed: Sequence[str]) -> Iterator[None]:
    """Offer the components of plugin files and allowed modules in the block; files are likely to import PyTorch."""
    with ExitStack() as stack:
        with loading() if files else nullcontext():
            stack.enter_context(plugins.using(files, allowed))
        yield


def _print_error(message: str) -> None:
    """Print to standard error: wrapped at words in a terminal, except for indented lines, which are to be copied."""
    console = Console(stderr=True)
    for line in message.splitlines():
        if line.startswith("  "):
            console.print(Text(line), soft_wrap=True)
        else:
            print_line(console, line)


def _progress_console() -> Console:
    """Return the console for what is in progress; of processes that a launcher started the first shows it."""
    return Console(stderr=True, quiet=os.environ.get("RANK", "0") != "0")


def _run(words: list[str]) -> int:
    files, allowed = take_option(words, PLUGIN), take_option(words, ALLOW)
    command, rest = (words[0], words[1:]) if words else ("", [])
    if command in ("", "help", *HELP):
        program().print_help()
        return 0 if command else 2
    if command in ("-V", "--version"):
        print(f"sslkit {__version__}")
        return 0
    if command not in COMMANDS:
        raise UnknownName("command", command, COMMANDS)
    with showing(_progress_console()), _plugins(files, allowed):
        parser = CommandParser(f"sslkit {command}")
        module = _declare(parser, command)
        needs_words = any(action.nargs != "?" for action in parser.positionals()) or parser.takes_overrides
        args = parser.parse(rest if rest or not needs_words else HELP[-1:])
        if not args.help:
            return int(module.run(args))
        show_help = getattr(module, "show_help", None)
        if show_help is None:
            parser.print_help()
        else:
            show_help(parser, args.positional)
        return 0 if rest else 2
