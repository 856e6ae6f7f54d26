"""Exceptions in the code of a plugin, as one message: the class, the method, the file and the line."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from sslkit.checks.classes import full_name, is_own
from sslkit.checks.components import CONTRACTS
from sslkit.errors import DEBUG, RunError

OTHERS = {"sslkit", "torch"}
"""Packages whose lines a component's author did not write."""


def failure_in(error: BaseException) -> RunError | None:
    """Return an error that says in which component an exception was raised; None where it was in none of a plugin.

    Args:
        error: an exception, or the `SystemExit` of a component that ends the program.
    """
    frames = [frame for frame in traceback.walk_tb(error.__traceback__) if _component_of(frame[0])]
    # Not the line of torch or of a contract that the component has called.
    own = [frame for frame in frames if frame[0].f_globals.get("__name__", "").partition(".")[0] not in OTHERS]
    if not frames:
        return None
    frame, line = (own or frames)[-1]
    place = f"{_component_of(frame)}.{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{line})"
    return RunError(f"{place} {_did(error)}")


def _component_of(frame: FrameType) -> str:
    """Return the name of the component, not one of sslkit itself, whose method runs in a frame; empty for others."""
    owner = frame.f_locals.get("cls")
    found = owner if isinstance(owner, type) else type(frame.f_locals.get("self"))
    return full_name(found) if issubclass(found, CONTRACTS) and not is_own(found) else ""


def _did(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"called sys.exit({'' if error.code is None else repr(error.code)}), which ended the program early"
    first = (str(error).splitlines() or [""])[0]
    return f"raised {type(error).__name__}{': ' if first else ''}{first} ({DEBUG}=1 shows all)"


@contextmanager
def exits_as_errors() -> Iterator[None]:
    """Turn a `SystemExit` inside the block into an error: with its code 0 an unfinished run would look like success.

    Raises:
        RunError: naming the component that called ``sys.exit``.
    """
    try:
        yield
    except SystemExit as error:
        raise failure_in(error) or RunError(f"something {_did(error)}") from error
