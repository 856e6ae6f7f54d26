"""Table of a recipe's components: the call, the package or file, and the recipe files that changed it."""

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
"""Keys in the order of the table: components, and ``method`` for its keys that are not components."""


def component_rows(recipe: Recipe) -> Iterator[tuple[str, Text, str]]:
    """Yield one row for each component of a recipe, and one for ``method`` where it differs from the defaults.

    Yields:
        The key, the call with its given arguments, and lines of origin: the package or plugin file of the class,
        then the recipe files, and the command line, that changed its arguments.
    """
    for key in SLOTS:
        spec = recipe.root.at(key)
        if isinstance(spec, ComponentSpec) and spec.name:
            yield key, _call(spec), _origin(recipe, spec)
        elif isinstance(spec, ComponentSpec) and (changed := _changed(spec)):
            origins = (origin for name in changed for origin in recipe.origins(f"{key}.{name}"))
            yield key, _arguments(changed), "\n".join(dict.fromkeys(Path(origin).stem for origin in origins))


def _origin(recipe: Recipe, spec: ComponentSpec) -> str:
    """Return the package or file of a component's class, and which recipes, above the lowest base, set its keys."""
    # None for a class that is named by its dotted path, which no plugin offers.
    entry = recipe.registry.find(kind_at(spec.key).hook, spec.name)
    changes = [Path(each).stem for each in recipe.origins(spec.key) if each != recipe.layers[0].origin]
    return "\n+ ".join([Path(entry.origin).name if entry else spec.cls.__module__, *changes])


def _changed(section: ComponentSpec) -> dict[str, Any]:
    """Return the arguments of a section that differ from their defaults and have no row of their own."""
    known = parameters(section.cls)
    return {
        name: value
        for name, value in section.given.items()
        if value != known[name].default and f"{section.key}.{name}" not in SLOTS
    }


def _arguments(given: Mapping[str, Any]) -> Text:
    return Text(", ").join(Text.assemble(f"{name}=", _call(value)) for name, value in given.items())


def _call(value: Any) -> Text:
    """Return a value in YAML's notation, and a component as a call with its given arguments."""
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
