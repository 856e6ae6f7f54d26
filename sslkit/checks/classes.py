"""Checks of a component's class before it is built: methods that take other arguments, names that nothing reads."""

import difflib
import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import FunctionType
from typing import Any

from sslkit.contracts import Callback
from sslkit.errors import ComponentError, did_you_mean

OPTIONAL = {"mask"}
"""Arguments that a method of a component may leave out."""


def full_name(cls: type) -> str:
    """Return the name of a class with its module, which leads to the package or file that it comes from."""
    return cls.__name__ if is_own(cls) else f"{cls.__module__}.{cls.__qualname__}"


def is_own(cls: type) -> bool:
    """Return whether a class is one of sslkit itself."""
    return cls.__module__.partition(".")[0] == "sslkit"


def check_class(found: type, contract: type, name: str) -> None:
    """Refuse a class that does not fit its contract, although it extends it.

    Args:
        found: a class that extends the contract.
        contract: the abstract class of its kind.
        name: of the class in messages.

    Raises:
        ComponentError: a method takes other arguments, a name is probably misspelt, or an argument of the constructor
            cannot be given by name.
    """
    methods = contract_methods(contract)
    for method, expected in methods.items():
        if inspect.getattr_static(found, method) is not inspect.getattr_static(contract, method):
            _check_arguments(found, method, _arguments(expected), name)
    for word in _new_names(found, contract):
        _check_spelling(word, contract, methods, name)
    for parameter in inspect.signature(vars(_owner_of_init(found))["__init__"]).parameters.values():
        if parameter.kind is parameter.POSITIONAL_ONLY and parameter.name != "self":
            raise ComponentError(
                f"{name}: __init__ takes {parameter.name} by position alone, but arguments are given by name; remove "
                "the / of its signature"
            )


def contract_methods(contract: type) -> dict[str, Callable[..., Any]]:
    """Return the methods of a contract that a component may override, by name."""
    return {
        name: value.__func__ if isinstance(value, classmethod) else value
        for owner in reversed(contract.__mro__)
        if is_own(owner)
        for name, value in vars(owner).items()
        if isinstance(value, FunctionType | classmethod) and (not name.startswith("_") or name == "__call__")
    }


def _arguments(method: Callable[..., Any]) -> list[str]:
    return list(inspect.signature(method).parameters)[1:]


def _check_arguments(found: type, method: str, expected: list[str], name: str) -> None:
    written = inspect.getattr_static(found, method)
    call = f"{method}({', '.join(expected)})"
    if not callable(getattr(found, method)):
        raise ComponentError(f"{name}: {method} must be a method, {call}, not {type(written).__name__}")
    if inspect.iscoroutinefunction(getattr(found, method)):
        raise ComponentError(f"{name}: {method} is async, but nothing awaits it; write def {call}")
    try:
        signature = inspect.signature(getattr(found, method))
    except ValueError:
        # Written in C: its arguments are not known.
        return
    own = list(signature.parameters.values())[isinstance(written, FunctionType) :]
    signature = signature.replace(parameters=own)
    for given in (expected, [word for word in expected if word not in OPTIONAL]):
        with suppress(TypeError):
            signature.bind(*given)
            return
    raise ComponentError(f"{name}: {method} takes ({', '.join(map(str, own))}), but is called as {call}")


def _new_names(found: type, contract: type) -> Iterator[str]:
    """Yield the public names that a class adds to those of its contract."""
    for owner in found.__mro__:
        if issubclass(owner, contract) and not is_own(owner):
            names = {**vars(owner), **vars(owner).get("__annotations__", {})}
            yield from (word for word in names if not word.startswith("_") and not hasattr(contract, word))


def _check_spelling(word: str, contract: type, methods: dict[str, Callable[..., Any]], name: str) -> None:
    attributes = {
        word for owner in contract.__mro__ if is_own(owner) for word in vars(owner).get("__annotations__", {})
    }
    if word in attributes:
        return
    if contract is Callback and word.startswith("on_"):
        raise ComponentError(f"{name}: a callback has no {word!r}, so nothing calls it.{did_you_mean(word, methods)}")
    # Only what is nearly the same: a component may have methods of its own.
    known = [other for other in {*vars(contract), *methods, *attributes} if not other.startswith("_")]
    if near := difflib.get_close_matches(word, known, n=1, cutoff=0.92):
        raise ComponentError(
            f"{name}: nothing reads {word!r}. Did you mean {near[0]!r}? If it is something else, choose another name"
        )


def _owner_of_init(found: type) -> type:
    return next(owner for owner in found.__mro__ if "__init__" in vars(owner))
