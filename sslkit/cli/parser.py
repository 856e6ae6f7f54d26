"""Declare a command's arguments once: parsing, help, shell completion and docs/commands.md are made from them."""

import argparse
import math
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from rich.text import Text

from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError, UnknownName
from sslkit.paths import local_path

Rows = Iterable[Sequence[str | Text]]

HELP = ("-h", "--help")
KEY_HELP = ".help"
"""The end of an option that asks what a recipe key takes."""


@dataclass(frozen=True)
class Section:
    """A part of a command's help: a heading with a note, and rows of names and explanations."""

    title: str
    note: str
    rows: Callable[[], Rows]


class CommandParser(argparse.ArgumentParser):
    """An argparse parser whose mistakes are sslkit's errors and whose help is sslkit's screen.

    Args:
        prog: how the command is called, "sslkit train".
    """

    def __init__(self, prog: str) -> None:
        super().__init__(prog=prog, add_help=False, allow_abbrev=False)
        self.sections: list[Section] = []
        # What every command has is explained once, in the help of the program.
        self.common = self.add_argument_group()
        self.common.add_argument(*HELP, action="store_true", help="show this help")
        self.describe("no argument")

    def describe(
        self,
        takes: str,
        note: str = "",
        examples: str = "",
        *,
        choices: str = "",
        overrides: bool = False,
        key_help: bool = False,
    ) -> None:
        """Set what the help and the errors say of the command as a whole.

        Args:
            takes: its positional arguments in words, for the error where others are given.
            note: what the command does.
            examples: calls of it, a line each.
            choices: what can be given, for the error where nothing is.
            overrides: whether it takes ``--NAME VALUE`` that it does not declare, such as keys of a recipe.
            key_help: whether ``--KEY.help`` asks what a key of a recipe takes.
        """
        self.takes, self.description, self.examples, self.choices = takes, note, examples, choices
        self.takes_overrides, self.takes_key_help = overrides, key_help

    def add_options(self, title: str = "Options", note: str = "") -> argparse._ArgumentGroup:
        """Return a group for options, which the help shows under a heading of its own."""
        group = self.add_argument_group(title, note)
        self.sections.append(Section(title, note, lambda: _option_rows(group)))
        return group

    def add_table(self, title: str, note: str, rows: Callable[[], Rows]) -> None:
        """Show rows that are no options under a heading of the help; they are made when the help is shown."""
        self.sections.append(Section(title, note, rows))

    def parse(self, words: Sequence[str]) -> argparse.Namespace:
        """Parse the words after the command.

        Returns:
            What was declared; ``overrides``, the words that were not; ``declared``, the command's options; and
            ``key_help``, where ``--KEY.help`` is asked for, that word and what follows it. Where ``help`` is true there
            is ``positional`` alone, and nothing was checked.

        Raises:
            SSLKitError: an unknown option, one without its value, or too many or too few positional arguments.
        """
        own, overrides, positional, key_help = self.split(words)
        if any(word in HELP for word in own):
            # Help is given whatever else is wrong.
            return argparse.Namespace(help=True, positional=positional)
        if not key_help:
            self._check_count(positional)
            args = self.parse_args([*own, *positional])
        else:
            args = argparse.Namespace(help=False)
        args.overrides, args.key_help, args.declared = overrides, key_help, self.options()
        return args

    def split(self, words: Sequence[str]) -> tuple[list[str], list[str], list[str], list[str]]:
        """Return declared options with their values, overrides with theirs, positional arguments, and a key's help.

        argparse alone would take the value of an override for a positional argument.
        """
        own: list[str] = []
        overrides: list[str] = []
        positional: list[str] = []
        rest = list(words)
        while rest:
            word = rest.pop(0)
            name, equals, value = word.partition("=")
            # Recipe keys have underscores, and people write options so too.
            declared = self._option_string_actions.get(name) or self._option_string_actions.get(name.replace("_", "-"))
            if not word.startswith("-"):
                positional.append(word)
            elif declared is not None and declared.nargs == 0:
                if equals:
                    raise SSLKitError(f"{name} takes no value; leave out {'=' + value!r}")
                own.append(declared.option_strings[-1])
            elif declared is not None:
                own.append(f"{declared.option_strings[-1]}={value if equals else _value(rest, name)}")
            elif not self.takes_overrides:
                raise UnknownName("option", name, self.options())
            elif self.takes_key_help and name.endswith(KEY_HELP):
                return own, overrides, positional, [word, *rest]
            else:
                overrides += [word] if equals else [word, _value(rest, word)]
        return own, overrides, positional, []

    def options(self) -> list[str]:
        """Return the options that the command declares."""
        return [action.option_strings[-1] for action in self._actions if action.option_strings]

    def arguments(self) -> list[argparse.Action]:
        """Return all that the command declares."""
        return [*self._actions]

    def commands(self) -> dict[str, "CommandParser"]:
        """Return the parsers of the commands below this one."""
        return {name: parser for each in self.positionals() for name, parser in dict(each.choices or {}).items()}

    def positionals(self) -> list[argparse.Action]:
        """Return the positional arguments that the command declares."""
        return [action for action in self._actions if not action.option_strings]

    def usage_line(self) -> str:
        """Return how the command is called, without options."""
        names = []
        for action in self.positionals():
            name = str(action.metavar)
            names.append({"?": f"[{name}]", "+": f"{name} ..."}.get(str(action.nargs), name))
        return " ".join([self.prog, *names])

    def print_help(self, file: Any = None) -> None:
        """Print the help to standard output."""
        parts = [(section.title, section.note, section.rows()) for section in self.sections]
        Screen().help(self.usage_line(), self.description or "", *parts, examples=self.examples)

    def error(self, message: str) -> NoReturn:
        """Raise argparse's message as one of sslkit's.

        Raises:
            SSLKitError: always.
        """
        raise SSLKitError(re.sub(r"^argument (\S+): ", r"\1 ", message))

    def _check_count(self, given: Sequence[str]) -> None:
        counts = [action.nargs for action in self.positionals()]
        fewest = len(counts) - counts.count("?")
        most = math.inf if "+" in counts else len(counts)
        if not fewest <= len(given) <= most:
            found = " and ".join(map(repr, given)) or "nothing"
            choices = f". Choices: {self.choices}." if self.choices and not given else ""
            raise SSLKitError(f"{self.prog} takes {self.takes}, not {found}{choices}")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Refuse a value that is none of an option's choices, as every unknown name is refused."""
        if action.choices is not None and value not in action.choices:
            where = action.option_strings[-1] if action.option_strings else ""
            raise UnknownName(action.dest, str(value), action.choices, where)


def whole(least: int) -> Callable[[str], int]:
    """Return a type for whole numbers of at least ``least``."""

    def parse(text: str) -> int:
        if not text.isdecimal() or int(text) < least:
            raise argparse.ArgumentTypeError(f"must be a whole number of at least {least}, not {text!r}")
        return int(text)

    return parse


def path(text: str) -> Path:
    """Return a path in which ``~`` is the home folder."""
    return local_path(text)


def take_option(words: list[str], name: str) -> list[str]:
    """Remove every ``name VALUE`` and ``name=VALUE`` from the words and return the values.

    Raises:
        SSLKitError: an option without its value.
    """
    values, rest = [], list(words)
    words.clear()
    while rest:
        word = rest.pop(0)
        if word == name:
            values.append(_value(rest, name))
        elif word.startswith(f"{name}="):
            values.append(word.removeprefix(f"{name}="))
        else:
            words.append(word)
    return values


def _option_rows(group: argparse._ArgumentGroup) -> Rows:
    for action in group._group_actions:
        value = [] if action.nargs == 0 else [str(action.metavar)]
        yield " ".join([action.option_strings[-1], *value]), action.help or ""


def _value(rest: list[str], name: str) -> str:
    if not rest or rest[0].startswith("--"):
        raise SSLKitError(f"{name} needs a value")
    return rest.pop(0)
