"""Checks of a recipe against the signatures of its classes: keys must exist, values must have their type."""

import copy
import functools
import math
import operator
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args, get_origin

from jsonargparse import ArgumentError, ArgumentParser

from sslkit.errors import RecipeError, did_you_mean, shown
from sslkit.hookspecs import Kind
from sslkit.recipe.layers import as_component
from sslkit.recipe.links import source_of_link
from sslkit.recipe.signature import REQUIRED, Parameter, parameters, takes_anything
from sslkit.recipe.type_hints import is_section, item_hint, kind_in, members, phrase, section_in
from sslkit.registry import Registry, contract

KEY_SYNONYMS = {
    "model": "method.backbone",
    "arch": "method.backbone",
    "encoder": "method.backbone",
    "learning_rate": "optimization.lr",
    "wd": "optimization.weight_decay",
    "workers": "runtime.num_workers",
    "accelerator": "runtime.device",
}
"""Recipe keys by the names that they have in other toolkits."""


class InvalidValue(RecipeError):
    """An unknown key or a value of the wrong type.

    Args:
        key: dotted.
        message: for the user.
    """

    def __init__(self, key: str, message: str) -> None:
        super().__init__(message)
        self.key = key


@dataclass
class ComponentSpec:
    """A section or component of a recipe, checked but not built.

    Args:
        cls: its class.
        key: its dotted key in the recipe, such as "method.teacher".
        name: its class name in recipes; empty for a section.
        given: the arguments that the recipe gives, by name: plain data, specifications, or lists of them.
    """

    cls: type
    key: str = ""
    name: str = ""
    given: dict[str, Any] = field(default_factory=dict)

    def at(self, key: str) -> Any:
        """Return the value of a dotted key below this one: given, otherwise the default, which may be REQUIRED."""
        name, _, rest = key.partition(".")
        # A class that takes any argument may be given one that its signature does not name.
        value = self.given[name] if name in self.given else parameters(self.cls)[name].default
        return value.at(rest) if rest and isinstance(value, ComponentSpec) else value


def fill(cls: type, given: Any, key: str, registry: Registry, name: str = "") -> ComponentSpec:
    """Return the specification of a section or component, checked with everything in it.

    Args:
        cls: dataclass of a section or class of a component.
        given: its arguments, as plain data.
        key: its dotted key, empty for the whole recipe.
        registry: the components that may be named.
        name: its class name in recipes; empty for a section.

    Raises:
        RecipeError: a key is unknown or missing, or a value has the wrong type; the message names the dotted key.
        UnknownName: there is no component of a name.
    """
    if not isinstance(given, Mapping):
        raise InvalidValue(key, f"{key} is a section with keys {', '.join(parameters(cls))}, not {shown(given)}.")
    known = parameters(cls)
    spec = ComponentSpec(cls, key, name)
    for word, value in given.items():
        place = f"{key}.{word}" if key else str(word)
        if word not in known and not takes_anything(cls):
            owner = f" of {name}" if name else ""
            suggestion = ("" if key else _in_sections(str(word), known)) or did_you_mean(str(word), known)
            raise InvalidValue(place, f"unknown key {shown(place)}{owner}.{suggestion}")
        spec.given[word] = validated(value, known[word].hint if word in known else Any, place, registry)
    for word, parameter in known.items():
        place = f"{key}.{word}" if key else word
        if word not in spec.given and is_section(parameter.hint):
            spec.given[word] = fill(parameter.hint, {}, place, registry)
        elif word not in spec.given and parameter.default is REQUIRED and not source_of_link(place):
            kind = kind_in(parameter.hint)
            choices = f", one of {', '.join(registry.names(kind.hook))}" if kind else ""
            raise RecipeError(f"{place} is missing: it must be {phrase(parameter.hint)}{choices}.")
    return spec


def _in_sections(word: str, sections: Mapping[str, Parameter]) -> str:
    """Return the keys of sections that a word at the top of a recipe probably means, in words; empty for none.

    Args:
        word: what was written, such as ``epochs``.
        sections: the keys of a recipe.
    """
    word = word.replace("-", "_")
    inner = {name: parameters(each.hint) for name, each in sections.items() if is_section(each.hint)}
    found = [f"{name}.{word}" for name, keys in inner.items() if word in keys]
    found = found or ([KEY_SYNONYMS[word]] if word in KEY_SYNONYMS else [])
    return f" Did you mean {' or '.join(map(repr, found))}?" if found else ""


def validated(value: Any, hint: Any, key: str, registry: Registry) -> Any:
    """Return a value converted to its type, components and sections as specifications.

    Raises:
        RecipeError: as `fill`.
    """
    item = item_hint(hint)
    if value is None:
        if hint is Any or type(None) in members(hint):
            return None
        raise InvalidValue(key, f"{key} must be {phrase(hint)}, not null.")
    if section := section_in(hint):
        return fill(section, value, key, registry)
    if item is not None and kind_in(item) and isinstance(value, list):
        return [validated(each, item, f"{key}.{i}", registry) for i, each in enumerate(value)]
    if kind := kind_in(hint):
        return _component(value, kind, hint, key, registry)
    return _leaf(value, hint, key)


def _component(value: Any, kind: Kind, hint: Any, key: str, registry: Registry) -> Any:
    component = as_component(value)
    others = [member for member in members(hint) if member not in (contract(kind), type(None))]
    # Plain data for an argument that takes a component or something else, such as a number or a schedule.
    if component is None and others and not isinstance(value, Mapping):
        return _leaf(value, hint, key, functools.reduce(operator.or_, others))
    if component is None:
        example = next(iter(registry.names(kind.hook)), "Name")
        is_class = str(value).lower() in (name.lower() for name in registry.names(kind.hook))
        if kind.hook == "backbones" and isinstance(value, str) and not is_class:
            # Other toolkits take the name of a network here.
            choices = ", ".join(registry.names(kind.hook))
            raise InvalidValue(
                key,
                f"{key} must be a backbone ({choices}), not {shown(value)}. Did you mean the timm model of that name? "
                "Add\n"
                f"  --{key} '{{TimmBackbone: {{name: {value}}}}}'",
            )
        raise InvalidValue(
            key,
            f"{key} must be {phrase(hint)}, written Name or {{Name: {{argument: value}}}} (for example {example}), "
            f"not {shown(value)}. Choices: {', '.join(registry.names(kind.hook)) or 'none'}.",
        )
    found = registry.get(kind.hook, component.name, key)
    return fill(found, component.arguments, key, registry, registry.short_name(kind.hook, found))


def _leaf(value: Any, hint: Any, key: str, accepted: Any = None) -> Any:
    """Return plain data converted to a type by jsonargparse.

    Args:
        value: plain data.
        hint: the type of the argument, for messages.
        key: dotted.
        accepted: the types to convert to; None for ``hint``.

    Raises:
        InvalidValue: the value is not of this type.
    """
    accepted = accepted or hint
    if get_origin(hint) is dict and isinstance(value, Mapping):
        _check_words(value, get_args(hint)[0], key)
    if _has_nan(value) or _has_text_for_a_number(value, accepted):
        quotes = " Leave out the quotes." if isinstance(value, str) and _is_number(value) else ""
        raise InvalidValue(key, f"{key} must be {phrase(hint)}, not {shown(value)}.{quotes}")
    try:
        # A copy, since jsonargparse changes lists in place.
        return _parser(accepted).parse_object({"value": copy.deepcopy(value)}).value
    except (TypeError, ValueError) as error:
        raise InvalidValue(key, f"{key}: the type hint of this argument, {hint!r}, is no type: {error}.") from error
    except (ArgumentError, OverflowError):
        # jsonargparse's own message has many lines, one for each type of a union.
        raise InvalidValue(key, f"{key} must be {phrase(hint)}, not {shown(value)}.") from None


def _has_nan(value: Any) -> bool:
    """Whether plain data is or contains NaN, which is the value of no key."""
    inner = value.values() if isinstance(value, Mapping) else value if isinstance(value, list) else ()
    return value != value or any(map(_has_nan, inner))


def _has_text_for_a_number(value: Any, hint: Any) -> bool:
    """Whether text stands where a type has none, which jsonargparse would read as YAML 1.1: "1:30" as 90."""
    if isinstance(value, list):
        items = [get_args(member)[0] for member in members(hint) if get_origin(member) in (list, tuple)]
        return any(_has_text_for_a_number(each, item) for each in value for item in items)
    plain = (int, float, bool, type(None))
    return isinstance(value, str) and all(m in plain or get_origin(m) in (list, tuple) for m in members(hint))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _check_words(value: Mapping[str, Any], hint: Any, key: str) -> None:
    """Raise an error for keys that the type of a mapping does not list, which jsonargparse ignores.

    Raises:
        InvalidValue: a key is not in the ``Literal`` of the type.
    """
    choices = get_args(hint) if get_origin(hint) is Literal else tuple(value)
    for word in value:
        if word not in choices:
            raise InvalidValue(f"{key}.{word}", f"unknown key '{key}.{word}'.{did_you_mean(str(word), choices)}")


@functools.cache
def _parser(hint: Any) -> ArgumentParser:
    parser = ArgumentParser(exit_on_error=False)
    parser.add_argument("--value", type=hint)
    return parser
