"""Exceptions in the code of a plugin, told in one message: the class, the method, the file and the line."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sslkit.class_checks import full_name, is_own
from sslkit.component_checks import CONTRACTS
from sslkit.errors import DEBUG, RunError


def failure_in(error: BaseException) -> RunError | None:
    """Return an error that says in which component an exception was raised; None where it was in none of a plugin.

    Args:
        error: an exception, or the `SystemExit` of a component that ends the program.
    """
    for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
        part = frame.f_locals.get("self")
        if isinstance(part, CONTRACTS) and not is_own(type(part)):
            place = f"{full_name(type(part))}.{frame.f_code.co_name} ({Path(frame.f_code.co_filename).name}:{line})"
            return RunError(f"{place} {_did(error)}")
    return None


def _did(error: BaseException) -> str:
    if isinstance(error, SystemExit):
        return f"called sys.exit({'' if error.code is None else repr(error.code)}), which ended the program early"
    first = (str(error).splitlines() or [""])[0]
    return f"raised {type(error).__name__}{': ' if first else ''}{first} ({DEBUG}=1 shows all)"


@contextmanager
def exits_told() -> Iterator[None]:
    """Turn a `SystemExit` inside the block into an error: with its code 0 an unfinished run would look like success.

    Raises:
        RunError: naming the component that called ``sys.exit``.
    """
    try:
        yield
    except SystemExit as error:
        raise failure_in(error) or RunError(f"something {_did(error)}") from error
