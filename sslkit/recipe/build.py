"""A checked recipe to the objects of a run."""

import logging
from collections.abc import Iterator
from typing import Any

from sslkit.errors import NoSuchSplit, RecipeError, SSLKitError
from sslkit.recipe.links import WHERE_NULL, source_of_link
from sslkit.recipe.serialize import plain
from sslkit.recipe.signature import REQUIRED, parameters
from sslkit.recipe.specification import Node
from sslkit.registry import Registry

logger = logging.getLogger("sslkit.recipe")

TEST = "data.test"
TEST_SPLITS = ("test", "validation", "val")
"""What the test images are called where the recipe leaves that open, the likeliest first."""


class Builder:
    """Makes the parts of one recipe, handing each its linked values; a part is made once.

    Args:
        root: the whole recipe.
        registry: names the classes in errors.
        open_test: whether the split of ``data.test`` may be another one, or none, where the images have no such;
            the recipe is changed to say which.
    """

    def __init__(self, root: Node, registry: Registry, open_test: bool = False) -> None:
        self.root = root
        self.registry = registry
        self.open_test = open_test
        self._made: dict[str, Any] = {}

    def part(self, key: str) -> Any:
        """Return the part under a dotted key: an object, a section, a plain value or None."""
        return self._value(self.root.at(key) if key else self.root)

    def components(self, section: str) -> Iterator[tuple[str, Any]]:
        """Yield every component of a section with its key, those inside others too, in the signatures' order."""
        for node in _components(self.root.at(section)):
            yield node.key, self._value(node)

    def _value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if not isinstance(value, Node):
            return value
        if value.key not in self._made:
            self._made[value.key] = self._make(value)
        return self._made[value.key]

    def _make(self, node: Node) -> Any:
        # In the signature's order, not the file's: the parts draw their first weights from one random stream.
        order = [*parameters(node.cls), *node.given]
        arguments = {name: self._value(node.given[name]) for name in order if name in node.given}
        arguments |= self._linked(node)
        try:
            return node.cls(**arguments)
        except NoSuchSplit as error:
            if node.key == TEST and self.open_test:
                return self._with_usual_split(node, error)
            without = f" Or leave test images out: --{TEST} null." if node.key == TEST else ""
            error.args = (_at(node.key, error) + without,)
            raise
        except SSLKitError as error:
            error.args = (_at(node.key, error),)
            raise
        except (TypeError, ValueError, RuntimeError) as error:
            raise RecipeError(_at(node.key, error)) from error

    def _with_usual_split(self, node: Node, missing: NoSuchSplit) -> Any:
        """Make the test images of a split that there is, or none."""
        split = next((name for name in TEST_SPLITS if name in missing.splits), None)
        if split is not None:
            node.given["split"] = split
            return self._make(node)
        self.root.at("data").given["test"] = None
        logger.warning(
            "%s has no test split (only %s), so nothing is evaluated; to name one: --%s '{%s: {split: NAME}}'",
            missing.owner,
            ", ".join(missing.splits),
            TEST,
            node.name,
        )
        return None

    def _linked(self, node: Node) -> dict[str, Any]:
        values = {}
        for name, parameter in parameters(node.cls).items():
            source = source_of_link(f"{node.key}.{name}")
            if source is None:
                continue
            value = self._source(source)
            if name in node.given:
                self._agree(node, name, source, value)
            elif value is not None:
                values[name] = value
            elif parameter.default is REQUIRED:
                reason = WHERE_NULL.get(source, f"takes {name} from {source}, which is null")
                raise RecipeError(f"{node.key}: {node.name} {reason}")
        return values

    def _source(self, key: str) -> Any:
        """Return a linked value: an argument of a section, or an attribute of a part."""
        owner, _, name = key.rpartition(".")
        node = self.root.at(owner)
        return self.root.at(key) if not node.name else getattr(self._value(node), name)

    def _agree(self, node: Node, name: str, source: str, value: Any) -> None:
        given = plain(node.given[name], self.registry)
        if value is not None and given != plain(value, self.registry):
            raise RecipeError(
                f"{node.key}.{name} is {given}, but {source} is {plain(value, self.registry)}; leave out the first"
            )


def _components(value: Any) -> Iterator[Node]:
    if isinstance(value, list):
        for item in value:
            yield from _components(item)
    elif isinstance(value, Node):
        if value.name:
            yield value
        for name in parameters(value.cls):
            yield from _components(value.given.get(name))


def _at(key: str, error: Exception) -> str:
    message = str(error)
    return f"{key}: {message}" if key and not message.startswith(key) else message
