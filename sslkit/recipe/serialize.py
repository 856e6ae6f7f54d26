"""Serialization of a checked recipe as plain data, with every default."""

from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sslkit.hookspecs import KINDS
from sslkit.recipe.links import source_of_link
from sslkit.recipe.signature import REQUIRED, parameters
from sslkit.recipe.specification import ComponentSpec
from sslkit.registry import Registry, contract


def plain(value: Any, registry: Registry) -> Any:
    """Return a value as plain data for YAML.

    Args:
        value: a component, its specification, or data.
        registry: gives the names of classes.

    Raises:
        TypeError: YAML cannot represent the value.
    """
    if isinstance(value, ComponentSpec):
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
        # A default such as Cosine(0.996, 1.0) is an instance; its arguments are read from attributes of their names.
        arguments = {name: plain(getattr(value, name), registry) for name in parameters(value.__class__)}
        return {registry.short_name(kind.hook, type(value)): arguments}
    # A string such as "<object at 0x...>" would differ in every process, and so would the identity of the recipe.
    if type(value).__str__ is object.__str__:
        raise TypeError(f"{value!r} cannot be written in a recipe")
    return str(value)


def complete(spec: ComponentSpec, registry: Registry) -> dict[str, Any]:
    """Return the arguments of a component or section as plain data, defaults included.

    Left out are arguments that a link gives and defaults that YAML cannot represent.
    """
    arguments = {}
    for name, parameter in parameters(spec.cls).items():
        if name in spec.given:
            arguments[name] = plain(spec.given[name], registry)
        elif parameter.default is not REQUIRED and not source_of_link(f"{spec.key}.{name}"):
            with suppress(TypeError, AttributeError):
                arguments[name] = plain(parameter.default, registry)
    return arguments | {n: plain(v, registry) for n, v in spec.given.items() if n not in arguments}
