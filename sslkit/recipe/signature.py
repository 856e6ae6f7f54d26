"""Read the arguments of a class, those of its parents, and their documentation."""

import dataclasses
import functools
import inspect
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, get_type_hints

import docstring_parser

REQUIRED = inspect.Parameter.empty
"""The default of an argument that has none."""


@dataclass(frozen=True)
class Parameter:
    """One argument of a class: its type, its default (or REQUIRED) and what its docstring says of it."""

    name: str
    hint: Any
    default: Any
    doc: str


@functools.cache
def parameters(cls: type) -> dict[str, Parameter]:
    """Return a class's arguments, those that it hands on to its parents included."""
    found: dict[str, Parameter] = {}
    for owner in _initialisers(cls):
        hints = _hints(owner)
        defaults = {f.name: f.default_factory for f in _fields(owner) if f.default_factory is not dataclasses.MISSING}
        docs = {p.arg_name: " ".join((p.description or "").split()) for p in _docstring(owner)}
        for p in list(inspect.signature(vars(owner)["__init__"]).parameters.values())[1:]:
            if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY):
                default = defaults[p.name]() if p.name in defaults else p.default
                hint = hints.get(p.name, Any)
                # The class's own argument hides that of a parent.
                found.setdefault(p.name, Parameter(p.name, hint, default, docs.get(p.name, "")))
    return found


def takes_anything(cls: type) -> bool:
    """Whether a class accepts arguments that its signature does not name."""
    last = list(_initialisers(cls))[-1:]
    return any(_has_var_keyword(owner) for owner in last)


def _initialisers(cls: type) -> Iterator[type]:
    """Yield the classes whose ``__init__`` sees the arguments: the first, and parents while ``**`` is handed on."""
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
        # A type that exists for the type checker alone: the class itself must judge the values.
        return {}


def _fields(owner: type) -> tuple[dataclasses.Field[Any], ...]:
    return dataclasses.fields(owner) if dataclasses.is_dataclass(owner) else ()


def _docstring(owner: type) -> list[docstring_parser.DocstringParam]:
    text = f"{owner.__doc__ or ''}\n\n{vars(owner)['__init__'].__doc__ or ''}"
    return docstring_parser.parse(text, docstring_parser.DocstringStyle.GOOGLE).params
