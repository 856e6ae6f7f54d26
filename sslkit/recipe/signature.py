"""Arguments of a class and of its parents, with their types, defaults and documentation."""

import dataclasses
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_type_hints
from weakref import WeakKeyDictionary

import docstring_parser

from sslkit.errors import ComponentError

REQUIRED = inspect.Parameter.empty
"""The default of a required argument."""


@dataclass(frozen=True)
class Parameter:
    """An argument of a class: its name, type, default (or REQUIRED) and description in the docstring."""

    name: str
    hint: Any
    default: Any
    doc: str


def parameters(cls: type) -> dict[str, Parameter]:
    """Return the arguments of a class by name, including those that it passes on to its parents by ``**``."""
    if cls not in _known:
        _known[cls] = _parameters(cls)
    return _known[cls]


# Weak: the classes of a plugin file must not outlive its use, as each makes later checks against its contract slower.
_known: WeakKeyDictionary[type, dict[str, Parameter]] = WeakKeyDictionary()


def _parameters(cls: type) -> dict[str, Parameter]:
    found: dict[str, Parameter] = {}
    for owner in _initialisers(cls):
        hints = _hints(owner)
        # A dataclass's signature has a placeholder instead of the value of a default factory.
        defaults = {f.name: f.default_factory for f in _fields(owner) if f.default_factory is not dataclasses.MISSING}
        docs = {p.arg_name: " ".join((p.description or "").split()) for p in _docstring(owner)}
        for p in list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                default = defaults[p.name]() if p.name in defaults else p.default
                hint = hints.get(p.name, Any)
                # An argument of the class itself takes precedence over that of a parent.
                found.setdefault(p.name, Parameter(p.name, hint, default, docs.get(p.name, "")))
    return found


def takes_anything(cls: type) -> bool:
    """Whether a class accepts arguments that its signature does not name."""
    last = list(_initialisers(cls))[-1:]
    return any(_has_var_keyword(owner) for owner in last)


def _initialisers(cls: type) -> Iterator[type]:
    """Yield the classes whose ``__init__`` gets arguments: the first in the MRO, and the next while it has ``**``."""
    for owner in cls.__mro__[:-1]:
        if "__init__" in vars(owner):
            yield owner
            if not _has_var_keyword(owner):
                return


def _has_var_keyword(owner: type) -> bool:
    signature = inspect.signature(vars(owner)["__init__"])
    return any(p.kind is p.VAR_KEYWORD for p in signature.parameters.values())


def _hints(owner: type) -> dict[str, Any]:
    try:
        return get_type_hints(vars(owner)["__init__"])
    except NameError:
        # A type that is imported under TYPE_CHECKING only: values are left to the class to check.
        return {}
    except Exception as error:
        name = f"{owner.__module__}.{owner.__qualname__}"
        raise ComponentError(f"{name}: a type hint of __init__ cannot be read: {error}") from error


def _fields(owner: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(owner) if dataclasses.is_dataclass(owner) else ()


def _docstring(owner: type) -> list[docstring_parser.DocstringParam]:
    text = f"{owner.__doc__ or ''}\n\n{vars(owner)['__init__'].__doc__ or ''}"
    return docstring_parser.parse(text, docstring_parser.DocstringStyle.GOOGLE).params
