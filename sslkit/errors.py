"""Errors that a user can mend, and the one sentence that helps."""

import difflib
from collections.abc import Iterable


class SSLKitError(Exception):
    """Base of every error that is the user's to mend: one message, no traceback, exit code 2."""


class RecipeError(SSLKitError):
    """A recipe or an override that cannot be run: an unknown key, a wrong type, parts that do not fit."""


class UnknownName(SSLKitError):
    """A name that nothing answers to.

    Args:
        kind: what was looked for, as the user would say it ("collapse operator").
        name: what was asked for.
        known: the names that exist.
        where: the recipe key that holds the name, if one does.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], where: str = "") -> None:
        prefix = f"{where}: " if where else ""
        super().__init__(f"{prefix}unknown {kind} {name!r}.{did_you_mean(name, known)}")


class DataError(SSLKitError):
    """Images that cannot be found or read."""


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

    def __reduce__(self) -> tuple[type["UnreadableImage"], tuple[str, str]]:
        # Exceptions pickle through their message; this one must survive the way back from a loader worker.
        return type(self), (self.name, self.reason)


class NotSupported(SSLKitError):
    """A component was asked for something that it does not have (attention of a convolutional network)."""


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return `` Did you mean 'x'? Choices: a, b, x.``, or only the choices when nothing is near."""
    choices = sorted(known)
    by_lower = {choice.lower(): choice for choice in choices}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.5)
    guess = f" Did you mean {by_lower[near[0]]!r}?" if near else ""
    return f"{guess} Choices: {', '.join(choices) or 'none'}."
