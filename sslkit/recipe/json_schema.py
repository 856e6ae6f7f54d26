"""JSON schema of recipe files, from the signatures of sections and registered components."""

import types
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, Union, get_args, get_origin

from sslkit.hookspecs import Kind
from sslkit.recipe.files import SCHEMA_KEY, builtin_recipes
from sslkit.recipe.sections import BuiltRecipe, Data, InitFrom
from sslkit.recipe.serialize import plain
from sslkit.recipe.signature import REQUIRED, Parameter, parameters, takes_anything
from sslkit.recipe.type_hints import is_section, kind_in, members
from sslkit.registry import Registry, contract

Schema = dict[str, Any]

DIALECT = "http://json-schema.org/draft-07/schema#"
"""The newest draft that the YAML language server of VS Code, Neovim and Emacs supports in full."""

PRIMITIVES = {float: "number", int: "integer", str: "string", bool: "boolean", type(None): "null"}

SHORT_FORMS = {
    Data: "a folder of images, which train and test are read from",
    InitFrom: "weights: timm:NAME, a run or a file",
}
"""Sections that a recipe may write as one string, with a description of that string."""

DOTTED = r"^([A-Za-z_]\w*[.:])+[A-Z]\w*$"
"""Pattern of a class by its import path, which need not be registered."""


def json_schema(registry: Registry) -> Schema:
    """Return the JSON schema of a recipe file.

    The loader checks what the schema leaves out: what depends on several keys (sizes that must fit, required keys,
    which a base may have), bounds of numbers, durations, and arguments of a class given by its import path.

    Args:
        registry: the components.
    """
    definitions = _Definitions(registry)
    recipe = definitions.section(BuiltRecipe)
    names = [*builtin_recipes()]
    recipe["properties"] = {
        SCHEMA_KEY: {"type": "string", "description": "the JSON schema that an editor checks this file with"},
        "base": {
            "description": "the recipe that this one starts from: a name, or a file relative to this one",
            "anyOf": [{"enum": names}, {"type": "string", "pattern": r"\.ya?ml$"}],
        },
        "name": {"type": "string", "description": "what runs of the recipe are called; the file's name without it"},
        **recipe["properties"],
    }
    return {"$schema": DIALECT, "title": "sslkit recipe", **recipe, "definitions": definitions.collected}


class _Definitions:
    """Schemas by name, for references; each is made when it is first referred to."""

    def __init__(self, registry: Registry) -> None:
        self.registry = registry
        self.collected: dict[str, Schema] = {}

    def section(self, cls: type) -> Schema:
        """Return the schema of a mapping with the arguments of a class, none of them required."""
        # A base recipe may give any argument, so that this file need not.
        schema: Schema = {
            "type": "object",
            "properties": {name: self._argument(parameter) for name, parameter in parameters(cls).items()},
        }
        return schema if takes_anything(cls) else {**schema, "additionalProperties": False}

    def value(self, hint: Any, merges: bool = True) -> Schema:
        """Return the schema of a value.

        Args:
            hint: its type.
            merges: whether the value may be merged with that of a base; items of lists are not.
        """
        if hint is Any:
            return {}
        if kind := kind_in(hint):
            others = [member for member in members(hint) if member is not contract(kind)]
            return _any_of([*self._component(kind, merges), *(self.value(member) for member in others)])
        if get_origin(hint) in (Union, types.UnionType):
            return _any_of([self.value(member, merges) for member in members(hint)])
        if is_section(hint):
            short = [{"type": "string", "description": SHORT_FORMS[hint]}] if hint in SHORT_FORMS else []
            return _any_of([self._refer(hint.__name__, lambda: self.section(hint)), *short])
        if get_origin(hint) is Literal:
            return {"enum": [*get_args(hint)]}
        if get_origin(hint) in (list, Sequence, set, tuple):
            return self._array(hint)
        if get_origin(hint) in (dict, Mapping):
            return self._mapping(*get_args(hint))
        return {"type": PRIMITIVES[hint]} if hint in PRIMITIVES else {}

    def _argument(self, parameter: Parameter) -> Schema:
        schema = self.value(parameter.hint)
        if "$ref" in schema:
            # Draft 7 ignores keywords next to a reference.
            schema = {"allOf": [schema]}
        if parameter.doc:
            schema = {"description": parameter.doc.replace("`", ""), **schema}
        if parameter.default is not REQUIRED and not is_section(parameter.hint):
            # A default that YAML cannot write is left out.
            with suppress(TypeError):
                schema = {**schema, "default": plain(parameter.default, self.registry)}
        return schema

    def _array(self, hint: Any) -> Schema:
        items = [item for item in get_args(hint) if item is not ...]
        if get_origin(hint) is tuple and ... not in get_args(hint):
            each = [self.value(item, merges=False) for item in items]
            return {"type": "array", "items": each, "minItems": len(each), "maxItems": len(each)}
        return {"type": "array", "items": self.value(items[0], merges=False) if items else {}}

    def _mapping(self, key: Any = str, value: Any = Any) -> Schema:
        if get_origin(key) is Literal:
            properties = {word: self.value(value) for word in get_args(key)}
            return {"type": "object", "properties": properties, "additionalProperties": False}
        return {"type": "object", "additionalProperties": self.value(value)}

    def _component(self, kind: Kind, merges: bool) -> Iterator[Schema]:
        """Yield the schemas of a component: with its name, and as arguments alone, merged with those of a base."""
        yield self._refer(kind.hook, lambda: {"anyOf": [*self._named(kind)]})
        if merges:
            yield self._refer(f"arguments of {kind.hook}", lambda: {"anyOf": [*self._arguments(kind)]})

    def _named(self, kind: Kind) -> Iterator[Schema]:
        entries = self.registry.entries(kind.hook)
        for entry in entries:
            yield {"const": entry.name, "description": entry.summary}
        properties = {
            entry.name: {
                "description": entry.summary,
                "anyOf": [self._arguments_of(kind, entry.name), {"type": "null"}],
            }
            for entry in entries
        }
        one = {"type": "object", "minProperties": 1, "maxProperties": 1}
        yield {**one, "properties": properties, "additionalProperties": False}
        yield {"type": "string", "pattern": DOTTED}
        yield {
            **one,
            "patternProperties": {DOTTED: {"type": ["object", "null"]}},
            "additionalProperties": False,
        }
        path = {"type": "string", "description": "a class by its path"}
        yield {
            "type": "object",
            "properties": {"class_path": path, "init_args": {"type": ["object", "null"]}},
            "required": ["class_path"],
            "additionalProperties": False,
        }

    def _arguments(self, kind: Kind) -> Iterator[Schema]:
        for name in self.registry.names(kind.hook):
            yield self._arguments_of(kind, name)

    def _arguments_of(self, kind: Kind, name: str) -> Schema:
        return self._refer(f"{kind.hook}.{name}", lambda: self.section(self.registry.get(kind.hook, name)))

    def _refer(self, name: str, make: Any) -> Schema:
        if name not in self.collected:
            # Entered before it is made, since a component may have arguments of its own kind.
            self.collected[name] = {}
            self.collected[name] = make()
        return {"$ref": f"#/definitions/{name.replace(' ', '%20')}"}


def _any_of(schemas: Sequence[Schema]) -> Schema:
    return schemas[0] if len(schemas) == 1 else {"anyOf": [*schemas]}
