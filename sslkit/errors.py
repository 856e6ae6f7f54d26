"""Errors that a user can resolve, each with one message."""

import difflib
from collections.abc import Iterable
from typing import Any, ClassVar

DEBUG = "SSLKIT_DEBUG"
"""Environment variable: set, a user's mistake also shows its traceback."""


class SSLKitError(Exception):
    """Base of every error that the user can resolve: one message, no traceback.

    It pickles whatever its ``__init__`` takes, so that it survives the way back from a loader worker.
    """

    exit_code: ClassVar[int] = 2
    """The program's: 2 for what was refused, 1 for what went wrong on the way."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _made_again, (type(self), self.args), self.__dict__


class RecipeError(SSLKitError):
    """A recipe or an override that cannot be run: an unknown key, a wrong type, parts that do not fit."""


class UnknownName(SSLKitError):
    """An unknown name, with the nearest known ones.

    Args:
        kind: what was looked for, as the user would say it ("collapse operator").
        name: what was asked for.
        known: the names that exist.
        where: the recipe key that holds the name, if one does.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}unknown {kind} {name!r}.{did_you_mean(name, known)}")


class RunError(SSLKitError):
    """A run that was on its way and could not go on."""

    exit_code = 1


class DataError(SSLKitError):
    """Images that cannot be found or read."""


class NoSuchSplit(DataError):
    """Images have no part of this name.

    Args:
        owner: what the images are, for people.
        split: the part that was asked for.
        splits: those that there are.
    """

    def __init__(self, owner: str, split: str, splits: Iterable[str]) -> None:
        self.owner, self.split, self.splits = owner, split, tuple(splits)
        super().__init__(f"{owner} has no split {split!r}.{did_you_mean(split, self.splits)}")


class UnreadableImage(DataError):
    """One image that cannot be decoded without loss.

    Args:
        name: the file, or the row, as a person would find it.
        reason: what was wrong with it.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class NotFinite(DataError):
    """Features, weights or images with numbers that are not finite, of which no metric can be computed."""


class NotSupported(SSLKitError):
    """A component was asked for something that it does not have (attention of a convolutional network)."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'? Choices: a, b, x.``, or only the choices when nothing is near."""
    choices = sorted(known)
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    guess = f" Did you mean {by_lower[near[0]]!r}?" if near else ""
    return f"{guess} Choices: {', '.join(choices) or 'none'}."


def _made_again(kind: type[SSLKitError], args: tuple[Any, ...]) -> SSLKitError:
    return kind.__new__(kind, *args)
