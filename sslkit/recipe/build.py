"""Instantiation of the components of a checked recipe."""

import copy
import logging
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from sslkit.checks.components import check_component, not_initialised
from sslkit.checks.failures import failure_in
from sslkit.device import memory_size
from sslkit.errors import ComponentError, NoSuchSplit, RecipeError, SSLKitError
from sslkit.recipe.links import WHERE_NULL, source_of_link
from sslkit.recipe.serialize import plain
from sslkit.recipe.signature import REQUIRED, parameters
from sslkit.recipe.specification import ComponentSpec
from sslkit.registry import Registry

LARGE = 2**17
"""A whole number above which a module's memory is computed before it is built; DINO's head has 2**16 prototypes."""

logger = logging.getLogger("sslkit.recipe")

TEST = "data.test"
TEST_SPLITS = ("test", "validation", "val")
"""Names of the test split that are tried, in this order, if the recipe leaves it open."""


class Builder:
    """Builds each component of a recipe once, with the arguments of the recipe and those that links give.

    Args:
        root: the whole recipe.
        registry: gives the names of classes in messages.
        open_test: whether ``data.test`` may use another split, or become null, if the images lack the split of the
            recipe. The choice is written into ``root``.
    """

    def __init__(self, root: ComponentSpec, registry: Registry, open_test: bool = False) -> None:
        self.root = root
        self.registry = registry
        self.open_test = open_test
        self._made: dict[str, Any] = {}

    def build(self, key: str) -> Any:
        """Return the value of a dotted key, built: a component, a section, plain data or None.

        Raises:
            SSLKitError: a component refuses its arguments; the message names the key.
        """
        return self._value(self.root.at(key) if key else self.root)

    def components(self, section: str) -> Iterator[tuple[str, Any]]:
        """Yield key and instance of every component of a section, nested ones included, in the order of signatures."""
        for spec in _components(self.root.at(section)):
            yield spec.key, self._value(spec)

    def _value(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._value(item) for item in value]
        if not isinstance(value, ComponentSpec):
            return value
        if value.key not in self._made:
            self._made[value.key] = self._make(value)
        return self._made[value.key]

    def _make(self, spec: ComponentSpec) -> Any:
        # In the order of the signature, not of the file: initial weights of all parts are drawn from one generator.
        order = [*parameters(spec.cls), *spec.given]
        arguments = {name: self._value(spec.given[name]) for name in order if name in spec.given}
        arguments |= self._linked(spec)
        for name, parameter in parameters(spec.cls).items():
            # A constructor that changes its default would change it for the next component and in recipe.yaml.
            if name not in arguments and isinstance(parameter.default, list | dict | set):
                arguments[name] = copy.deepcopy(parameter.default)
        try:
            _check_memory(spec.cls, arguments)
            made = spec.cls(**arguments)
            check_component(made)
            return made
        except NoSuchSplit as error:
            if spec.key == TEST and self.open_test:
                return self._with_usual_split(spec, error)
            without = f" Or leave test images out: --{TEST} null." if spec.key == TEST else ""
            # The same error, of the same class, with the key in its message.
            error.args = (_at(spec.key, error) + without,)
            raise
        except SSLKitError as error:
            error.args = (_at(spec.key, error),)
            raise
        except MemoryError as error:
            raise RecipeError(
                f"{spec.key}: {spec.name or 'it'} does not fit into the memory of this machine"
            ) from error
        except (TypeError, ValueError, RuntimeError, OverflowError) as error:
            raise RecipeError(_at(spec.key, error)) from error
        except AttributeError as error:
            if "Module.__init__() call" in str(error):
                raise ComponentError(_at(spec.key, not_initialised(spec.cls))) from error
            raise _of_plugin(spec, error) from error
        except Exception as error:
            raise _of_plugin(spec, error) from error

    def _with_usual_split(self, spec: ComponentSpec, missing: NoSuchSplit) -> Any:
        """Build the test images from the first of `TEST_SPLITS` that exists, or return None with a warning."""
        split = next((name for name in TEST_SPLITS if name in missing.splits), None)
        if split is not None:
            spec.given["split"] = split
            return self._make(spec)
        self.root.at("data").given["test"] = None
        logger.warning(
            "%s has no test split (only %s), so nothing is evaluated; to name one: --%s '{%s: {split: NAME}}'",
            missing.owner,
            ", ".join(missing.splits),
            TEST,
            spec.name,
        )
        return None

    def _linked(self, spec: ComponentSpec) -> dict[str, Any]:
        """Return the arguments that links give; an argument that the recipe gives too must be equal."""
        values = {}
        for name, parameter in parameters(spec.cls).items():
            source = source_of_link(f"{spec.key}.{name}")
            if source is None:
                continue
            value = self._source(source)
            if name in spec.given:
                self._agree(spec, name, source, value)
            elif value is not None:
                values[name] = value
            elif parameter.default is REQUIRED:
                reason = WHERE_NULL.get(source, f"takes {name} from {source}, which is null")
                raise RecipeError(f"{spec.key}: {spec.name} {reason}")
        return values

    def _source(self, key: str) -> Any:
        """Return a linked value: an argument of a section, or an attribute of a built component."""
        owner, _, name = key.rpartition(".")
        spec = self.root.at(owner)
        return self.root.at(key) if not spec.name else getattr(self._value(spec), name)

    def _agree(self, spec: ComponentSpec, name: str, source: str, value: Any) -> None:
        # As plain data, since a list of a recipe may be a tuple in a component.
        given = plain(spec.given[name], self.registry)
        if value is not None and given != plain(value, self.registry):
            raise RecipeError(
                f"{spec.key}.{name} is {given}, but {source} is {plain(value, self.registry)}; leave out the first"
            )


def _check_memory(cls: type, arguments: dict[str, Any]) -> None:
    """Raise an error if the tensors of a module are larger than the memory of this machine, before they are allocated.

    Raises:
        MemoryError: they are.
    """
    memory = memory_size()
    if memory is None or not issubclass(cls, nn.Module) or not any(map(_is_large, arguments.values())):
        return
    try:
        # On the meta device tensors have shapes alone. Random numbers are drawn by the module that is really built.
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            module = cls(**arguments)
    except Exception:
        # The module itself says what is wrong, or it cannot be built without values.
        return
    if sum(tensor.nbytes for tensor in (*module.parameters(), *module.buffers())) > memory:
        raise MemoryError


def _is_large(value: Any) -> bool:
    """Whether plain data is or contains a whole number that is far above those of published networks."""
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list | tuple) else ()
    return any(map(_is_large, inner)) or (isinstance(value, int) and value > LARGE)


def _components(value: Any) -> Iterator[ComponentSpec]:
    if isinstance(value, list):
        for item in value:
            yield from _components(item)
    elif isinstance(value, ComponentSpec):
        if value.name:
            yield value
        for name in parameters(value.cls):
            yield from _components(value.given.get(name))


def _of_plugin(spec: ComponentSpec, error: Exception) -> Exception:
    """Return an error that names the key and the line of a plugin's constructor; another one is none of the user's."""
    failure = failure_in(error)
    return error if failure is None else RecipeError(_at(spec.key, failure))


def _at(key: str, error: Exception) -> str:
    message = str(error)
    return f"{key}: {message}" if key and not message.startswith(key) else message
