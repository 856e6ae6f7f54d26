"""Inspection of type hints: the components and sections that they allow, and their names in messages."""

import dataclasses
import types
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Union, get_args, get_origin

from sslkit.hookspecs import KINDS, Kind
from sslkit.registry import contract


def kind_in(hint: Any) -> Kind | None:
    """Return the kind of component that a type allows, or None."""
    return next((kind for kind in KINDS for member in members(hint) if member is contract(kind)), None)


def item_hint(hint: Any) -> Any:
    """Return the type of the items of a list, or None if the type is not a list."""
    return next((get_args(m)[0] for m in members(hint) if get_origin(m) in (list, Sequence)), None)


def phrase(hint: Any) -> str:
    """Return the name of a type for messages, such as "a number or null"."""
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
    """Return the section of a type that is a section or an optional section, otherwise None."""
    others = [member for member in members(hint) if member is not type(None)]
    return others[0] if len(others) == 1 and is_section(others[0]) else None


def members(hint: Any) -> tuple[Any, ...]:
    """Return the members of a union; for any other type a tuple with that type."""
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
