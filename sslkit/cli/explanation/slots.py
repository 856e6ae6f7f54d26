"""The slots of a recipe: what fills them, where that comes from, and what changed it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rich.text import Text

from sslkit.cli.describe import kind_at
from sslkit.cli.screen import Screen
from sslkit.recipe import Recipe
from sslkit.recipe.layers import COMMAND_LINE
from sslkit.recipe.typed import Node

SLOTS = [f"method.{slot}" for slot in ("backbone", "head", "predictor", "teacher", "collapse", "loss")]
SLOTS += ["views", "data.train", "data.test", "optimization.optimizer"]


def show_slots(screen: Screen, recipe: Recipe) -> None:
    """Print the filled slots under the recipe's name and file."""
    file = next(layer.origin for layer in reversed(recipe.layers) if layer.origin != COMMAND_LINE)
    screen.heading(recipe.name, file)
    screen.columns(_slots(recipe))


def _slots(recipe: Recipe) -> Iterator[tuple[str, Text, str]]:
    for key in SLOTS:
        node = recipe.root.at(key)
        if isinstance(node, Node):
            yield key, _call(node), _origin(recipe, node)


def _origin(recipe: Recipe, node: Node) -> str:
    """Return the distribution or file of a component, and what changes it on top of the lowest recipe."""
    entry = recipe.registry.find(kind_at(node.key).hook, node.name)
    changes = [Path(each).stem for each in recipe.origins(node.key) if each != recipe.layers[0].origin]
    return "\n+ ".join([Path(entry.origin).name if entry else node.cls.__module__, *changes])


def _call(value: Any) -> Text:
    """Return a component as it would be called, with the arguments that were given in YAML's words."""
    if isinstance(value, Mapping):
        items = (Text.assemble(f"{name}: ", _call(item)) for name, item in value.items())
        return Text.assemble("{", Text(", ").join(items), "}")
    if isinstance(value, list | tuple):
        return Text.assemble("[", Text(", ").join(_call(item) for item in value), "]")
    if value is None or isinstance(value, bool):
        return Text({None: "null", True: "true", False: "false"}[value])
    if not isinstance(value, Node):
        return Text(f"{value:g}" if isinstance(value, float) else str(value))
    arguments = (Text.assemble(f"{name}=", _call(given)) for name, given in value.given.items())
    return Text.assemble((value.name, "bold"), "(", Text(", ").join(arguments), ")")
