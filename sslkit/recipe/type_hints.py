"""Inspect the types of arguments: the components that they admit, and their names in messages."""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from sslkit.hookspecs import KINDS, Kind
from sslkit.registry import contract


def kind_in(hint: Any) -> Kind | None:
    """Return the kind of component that a type admits, or None."""
    return next((kind for kind in KINDS for member in members(hint) if member is contract(kind)), None)


def item_hint(hint: Any) -> Any:
    """Return the type of a list's items."""
    return next((get_args(m)[0] for m in members(hint) if get_origin(m) in (list, Sequence)), None)


def phrase(hint: Any) -> str:
    """Return a type in words, for messages."""
    words = {float: "a number", int: "a whole number", str: "text", bool: "true or false", type(None): "null"}
    if hint in words:
        return words[hint]
    if is_section(hint):
        return "a section"
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(phrase(member) for member in members(hint))
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (list, Sequence, set, tuple):
        arguments = [argument for argument in get_args(hint) if argument is not ...]
        count = f" of {len(arguments)}" if get_origin(hint) is tuple and ... not in get_args(hint) else ""
        return f"a list{count}, each {phrase(arguments[0]) if arguments else 'anything'}"
    if get_origin(hint) in (dict, Mapping):
        return "a mapping"
    kind = kind_in(hint)
    if kind:
        return f"{'an' if kind.singular[0] in 'aeiou' else 'a'} {kind.singular}"
    return getattr(hint, "__name__", str(hint))


def is_section(hint: Any) -> bool:
    """Whether a type is a section of a recipe: a dataclass."""
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def section_in(hint: Any) -> type | None:
    """Return the section that a type admits, alone or beside null, or None."""
    others = [member for member in members(hint) if member is not type(None)]
    return others[0] if len(others) == 1 and is_section(others[0]) else None


def members(hint: Any) -> tuple[Any, ...]:
    """Return the alternatives of a union; of any other type itself."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
