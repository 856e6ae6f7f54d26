"""Errors that a user can fix, each with one message."""

import difflib
import reprlib
import traceback
from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any, ClassVar

DEBUG = "SSLKIT_DEBUG"
"""Environment variable; if it is set, errors of this module are printed with their traceback."""


class SSLKitError(Exception):
    """Base class of errors that a user can fix; the program prints the message without a traceback."""

    exit_code: ClassVar[int] = 2
    """Exit code of the program: 2 where input is refused, 1 where a run fails."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Loader workers send their errors pickled. An exception is unpickled as class(*args), and args is the message,
        # which is not what the __init__ of some subclasses takes.
        return _unpickled, (type(self), self.args), self.__dict__


class RecipeError(SSLKitError):
    """A recipe or an override that cannot be run: an unknown key, a wrong type, components that do not fit."""


class OutOfRange(RecipeError, ValueError):
    """A number that is not in the interval that an argument takes."""


class ComponentError(SSLKitError, TypeError):
    """A component that does not keep to the contract of its kind, such as a loss that returns no number."""


class UnknownName(SSLKitError):
    """An unknown name, with the nearest known ones.

    Args:
        kind: what the name stands for, in words for the message ("collapse operator").
        name: the unknown name.
        known: the names that exist.
        where: the recipe key with the name; empty if it is not from a recipe.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}unknown {kind} {shown(name)}.{did_you_mean(name, known)}")


class RunError(SSLKitError):
    """A run that started and cannot continue."""

    exit_code = 1


class DataError(SSLKitError):
    """Images that cannot be found or read."""


class NoSuchSplit(DataError):
    """An image source has no split of this name.

    Args:
        owner: name of the image source, for the message.
        split: the missing split.
        splits: the splits that exist.
    """

    def __init__(self, owner: str, split: str, splits: Iterable[str]) -> None:
        self.owner, self.split, self.splits = owner, split, tuple(splits)
        super().__init__(f"{owner} has no split {shown(split)}.{did_you_mean(split, self.splits)}")


class UnreadableImage(DataError):
    """One image that cannot be decoded without loss.

    Args:
        name: the file, or the table and its row.
        reason: what is wrong with it.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class NotFinite(DataError):
    """Features, weights or images with numbers that are not finite, of which no metric can be computed."""


class NotSupported(SSLKitError):
    """An operation that a component does not offer, such as the attention of a convolutional network."""


def install_command(*packages: str) -> str:
    """Return the command that installs packages into this environment; one that uv made has no pip of its own."""
    installer = "pip" if find_spec("pip") else "uv pip"
    return f"{installer} install {' '.join(packages)}"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'? Choices: a, b, x.``, or only the choices when nothing is near."""
    choices = sorted(known)
    # difflib is case-sensitive: it finds nothing in common between "ema" and "EMA".
    by_lower = {choice.lower(): choice for choice in choices}
    # A beginning of names is the likeliest mistake: "dino" for "dino-vit-small".
    near = [choice for choice in by_lower if name and choice.startswith(name.lower())]
    near = near or difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    guess = f" Did you mean {by_lower[near[0]]!r}?" if near else ""
    return f"{guess} Choices: {', '.join(choices) or 'none'}."


def shown(value: object) -> str:
    """Return a value as messages show it: as Python writes it, but long ones shortened."""
    return _short.repr(value)


_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 100
_short.maxlist = _short.maxtuple = _short.maxdict = 10
_short.maxlevel = 4


def some(names: Sequence[str], limit: int = 4) -> str:
    """Return the first ``limit`` names as messages list them, and the number of the others."""
    more = f" and {len(names) - limit} more" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def reason_of(error: BaseException) -> str:
    """Return the first line of an error's message, or the line of code that failed where it has none."""
    if isinstance(error, SSLKitError):
        return str(error)
    first = str(error).strip().partition("\n")[0]
    if not first and (frames := traceback.extract_tb(error.__traceback__)):
        lines = [frame.line or "" for frame in reversed(frames)]
        # A function that only raises says less than the line that called it.
        first = next((line for line in lines if not line.startswith("raise ")), lines[0])
    # Short, and without the class, where that says no more than that something is wrong.
    named = isinstance(error, ValueError | RuntimeError | AssertionError | OSError) and first
    return first if named else f"{type(error).__name__}: {first}".rstrip(": ")


def message_of(error: BaseException, limit: int = 300) -> str:
    """Return what an error of a library says, in one line of at most about ``limit`` characters."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= limit else f"{text[:limit].rsplit(' ', 1)[0]} ..."


def _unpickled(kind: type[SSLKitError], args: tuple[Any, ...]) -> SSLKitError:
    return kind.__new__(kind, *args)
