"""List the components of a recipe, their origin, and the layer of the recipe that changed them."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from sslkit.recipe import Recipe
from sslkit.recipe.keys import kind_at
from sslkit.recipe.signature import parameters
from sslkit.recipe.specification import ComponentSpec

SLOTS = [f"method.{slot}" for slot in ("backbone", "head", "predictor", "teacher", "collapse", "loss")]
SLOTS += ["method", "views", "data.train", "data.test", "optimization.optimizer"]
"""Components, and ``method`` for what it says besides."""


def component_rows(recipe: Recipe) -> Iterator[tuple[str, Text, str]]:
    """Yield the key, the call and the origin of each component of a recipe, and of a section what it changes."""
    for key in SLOTS:
        spec = recipe.root.at(key)
        if isinstance(spec, ComponentSpec) and spec.name:
            yield key, _call(spec), _origin(recipe, spec)
        elif isinstance(spec, ComponentSpec) and (changed := _changed(spec)):
            origins = (origin for name in changed for origin in recipe.origins(f"{key}.{name}"))
            yield key, _arguments(changed), "\n".join(dict.fromkeys(Path(origin).stem for origin in origins))


def _origin(recipe: Recipe, spec: ComponentSpec) -> str:
    """Return the distribution or file of a component, and what changes it on top of the lowest recipe."""
    entry = recipe.registry.find(kind_at(spec.key).hook, spec.name)
    changes = [Path(each).stem for each in recipe.origins(spec.key) if each != recipe.layers[0].origin]
    return "\n+ ".join([Path(entry.origin).name if entry else spec.cls.__module__, *changes])


def _changed(section: ComponentSpec) -> dict[str, Any]:
    """Return what a section gives that is not the default and has no line of its own."""
    known = parameters(section.cls)
    return {
        name: value
        for name, value in section.given.items()
        if value != known[name].default and f"{section.key}.{name}" not in SLOTS
    }


def _arguments(given: Mapping[str, Any]) -> Text:
    return Text(", ").join(Text.assemble(f"{name}=", _call(value)) for name, value in given.items())


def _call(value: Any) -> Text:
    """Return a component as it would be called, with the arguments that were given in YAML's words."""
    if isinstance(value, ComponentSpec) and not value.name:
        value = _changed(value)
    if isinstance(value, Mapping):
        items = (Text.assemble(f"{name}: ", _call(item)) for name, item in value.items())
        return Text.assemble("{", Text(", ").join(items), "}")
    if isinstance(value, list | tuple):
        return Text.assemble("[", Text(", ").join(_call(item) for item in value), "]")
    if value is None or isinstance(value, bool):
        return Text({None: "null", True: "true", False: "false"}[value])
    if not isinstance(value, ComponentSpec):
        return Text(f"{value:g}" if isinstance(value, float) else str(value))
    return Text.assemble((value.name, "bold"), "(", _arguments(value.given), ")")
