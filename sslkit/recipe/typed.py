"""A recipe against the signatures of the classes it names: every key known, every value of its type."""

import copy
import dataclasses
import functools
import inspect
import operator
import types
from collections.abc import Iterator, Mapping
from collections.abc import Sequence as AbstractSequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import docstring_parser
from jsonargparse import ArgumentError, ArgumentParser

from sslkit.errors import RecipeError, did_you_mean
from sslkit.hookspecs import KINDS, Kind
from sslkit.recipe.layers import as_component
from sslkit.recipe.links import source_of_link
from sslkit.registry import Registry, contract

REQUIRED = inspect.Parameter.empty


class Misfit(RecipeError):
    """A key that does not exist or a value of another type, with the dotted key."""

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass(frozen=True)
class Parameter:
    """One argument of a class: its type, its default (or REQUIRED) and what its docstring says of it."""

    name: str
    hint: Any
    default: Any
    doc: str


@dataclass
class Node:
    """A section, or a component, with the arguments that the recipe gives it.

    Args:
        cls: the class to make.
        key: where it stands in the recipe ("method.teacher").
        name: the name that a recipe calls it by; empty for a section.
        given: arguments by name: plain values, nodes, or lists of them.
    """

    cls: type
    key: str = ""
    name: str = ""
    given: dict[str, Any] = field(default_factory=dict)

    def at(self, key: str) -> Any:
        """Return what is given, else the default, under a dotted key below this node; REQUIRED for nothing."""
        name, _, rest = key.partition(".")
        value = self.given.get(name, parameters(self.cls)[name].default)
        return value.at(rest) if rest and isinstance(value, Node) else value


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
                found.setdefault(p.name, Parameter(p.name, hint, default, docs.get(p.name, "")))
    return found


def takes_anything(cls: type) -> bool:
    """Whether a class accepts arguments that its signature does not name."""
    last = list(_initialisers(cls))[-1:]
    return any(_has_var_keyword(owner) for owner in last)


def fill(cls: type, given: Any, key: str, registry: Registry, name: str = "") -> Node:
    """Check what a recipe gives a class, all the way down.

    Args:
        cls: a section's dataclass or a component's class.
        given: its arguments, as plain data.
        key: its place in the recipe, empty for the whole.
        registry: where component names are looked up.
        name: the name that the recipe calls it by.

    Raises:
        RecipeError: an unknown key, or a value of another type; the message names the dotted key.
        UnknownName: a component that there is not.
    """
    if not isinstance(given, Mapping):
        raise Misfit(key, f"{key} is a section with keys {', '.join(parameters(cls))}, not {given!r}.")
    known = parameters(cls)
    node = Node(cls, key, name)
    for word, value in given.items():
        place = f"{key}.{word}" if key else str(word)
        if word not in known and not takes_anything(cls):
            owner = f" of {name}" if name else ""
            raise Misfit(place, f"unknown key {place!r}{owner}.{did_you_mean(str(word), known)}")
        node.given[word] = typed(value, known[word].hint if word in known else Any, place, registry)
    for word, parameter in known.items():
        place = f"{key}.{word}" if key else word
        if word not in node.given and _is_section(parameter.hint):
            node.given[word] = fill(parameter.hint, {}, place, registry)
        elif word not in node.given and parameter.default is REQUIRED and not source_of_link(place):
            kind = kind_in(parameter.hint)
            choices = f", one of {', '.join(registry.names(kind.hook))}" if kind else ""
            raise RecipeError(f"{place} is missing: it must be {phrase(parameter.hint)}{choices}.")
    return node


def typed(value: Any, hint: Any, key: str, registry: Registry) -> Any:
    """Return a value as its type, components and sections as nodes."""
    item = item_hint(hint)
    if value is None:
        if hint is Any or type(None) in _members(hint):
            return None
        raise Misfit(key, f"{key} must be {phrase(hint)}, not null.")
    if _is_section(hint):
        return fill(hint, value, key, registry)
    if item is not None and kind_in(item) and isinstance(value, list):
        return [typed(each, item, f"{key}.{i}", registry) for i, each in enumerate(value)]
    if kind := kind_in(hint):
        return _component(value, kind, hint, key, registry)
    return _leaf(value, hint, key)


def _component(value: Any, kind: Kind, hint: Any, key: str, registry: Registry) -> Any:
    component = as_component(value)
    others = [member for member in _members(hint) if member not in (contract(kind), type(None))]
    if component is None and others and not isinstance(value, Mapping):
        return _leaf(value, hint, key, functools.reduce(operator.or_, others))
    if component is None:
        example = next(iter(registry.names(kind.hook)), "Name")
        raise Misfit(
            key,
            f"{key} must be {phrase(hint)}, written Name or {{Name: {{argument: value}}}} ({example}, for one), "
            f"not {value!r}. Choices: {', '.join(registry.names(kind.hook)) or 'none'}.",
        )
    found = registry.get(kind.hook, component.name, key)
    return fill(found, component.arguments, key, registry, registry.short_name(kind.hook, found))


def _leaf(value: Any, hint: Any, key: str, accepted: Any = None) -> Any:
    """Return a value as jsonargparse reads it into this type."""
    if get_origin(hint) is dict and isinstance(value, Mapping):
        _check_words(value, get_args(hint)[0], key)
    try:
        # jsonargparse changes lists in place.
        return _parser(accepted or hint).parse_object({"value": copy.deepcopy(value)}).value
    except ArgumentError:
        raise Misfit(key, f"{key} must be {phrase(hint)}, not {value!r}.") from None


def _check_words(value: Mapping[str, Any], hint: Any, key: str) -> None:
    """Refuse keys that a mapping's type does not list; jsonargparse passes over them."""
    choices = get_args(hint) if get_origin(hint) is Literal else tuple(value)
    for word in value:
        if word not in choices:
            raise Misfit(f"{key}.{word}", f"unknown key '{key}.{word}'.{did_you_mean(str(word), choices)}")


@functools.cache
def _parser(hint: Any) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    return parser


def kind_in(hint: Any) -> Kind | None:
    """Return the kind of component that a type admits, or None."""
    return next((kind for kind in KINDS for member in _members(hint) if member is contract(kind)), None)


def item_hint(hint: Any) -> Any:
    """Return the type of a list's items."""
    return next((get_args(m)[0] for m in _members(hint) if get_origin(m) in (list, AbstractSequence)), None)


def phrase(hint: Any) -> str:
    """Say a type in words."""
    words = {float: "a number", int: "a whole number", str: "text", bool: "true or false", type(None): "null"}
    if hint in words:
        return words[hint]
    if get_origin(hint) in (Union, types.UnionType):
        return " or ".join(phrase(member) for member in _members(hint))
    if get_origin(hint) is Literal:
        return f"one of {', '.join(map(str, get_args(hint)))}"
    if get_origin(hint) in (list, AbstractSequence, set, tuple):
        arguments = [argument for argument in get_args(hint) if argument is not ...]
        count = f" of {len(arguments)}" if get_origin(hint) is tuple and ... not in get_args(hint) else ""
        return f"a list{count}, each {phrase(arguments[0]) if arguments else 'anything'}"
    if get_origin(hint) in (dict, Mapping):
        return "a mapping"
    kind = kind_in(hint)
    if kind:
        return f"{'an' if kind.singular[0] in 'aeiou' else 'a'} {kind.singular}"
    return getattr(hint, "__name__", str(hint))


def plain(value: Any, registry: Registry) -> Any:
    """Return a value as YAML can write it.

    Raises:
        TypeError: it cannot be written.
    """
    if isinstance(value, Node):
        arguments = complete(value, registry)
        return {value.name: arguments} if value.name else arguments
    if value is None or isinstance(value, str | int | float):
        return value
    if isinstance(value, Mapping):
        return {key: plain(item, registry) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item, registry) for item in value]
    kind = next((kind for kind in KINDS if isinstance(value, contract(kind))), None)
    if kind:
        # A default such as Cosine(0.996, 1.0) is written by the attributes that its arguments became.
        arguments = {name: plain(getattr(value, name), registry) for name in parameters(value.__class__)}
        return {registry.short_name(kind.hook, type(value)): arguments}
    if type(value).__str__ is object.__str__:
        raise TypeError(f"{value!r} cannot be written in a recipe")
    return str(value)


def complete(node: Node, registry: Registry) -> dict[str, Any]:
    """Return a node's arguments, and every default that can be written and that no link gives."""
    arguments = {}
    for name, parameter in parameters(node.cls).items():
        if name in node.given:
            arguments[name] = plain(node.given[name], registry)
        elif parameter.default is not REQUIRED and not source_of_link(f"{node.key}.{name}"):
            with suppress(TypeError, AttributeError):
                arguments[name] = plain(parameter.default, registry)
    return arguments | {n: plain(v, registry) for n, v in node.given.items() if n not in arguments}


def _is_section(hint: Any) -> bool:
    return isinstance(hint, type) and dataclasses.is_dataclass(hint)


def _members(hint: Any) -> tuple[Any, ...]:
    return get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)


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
