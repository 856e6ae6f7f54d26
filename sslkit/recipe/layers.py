"""Merging of the layers of a recipe: base recipes, the recipe itself, and overrides.

A component is written ``Name`` or ``{Name: {argument: value}}``. If two layers give the same key, arguments of the same
class, or a mapping without a class, are merged; another class, lists and plain values replace.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any, NamedTuple

from sslkit.errors import RecipeError, shown
from sslkit.plugins import active
from sslkit.recipe.files import Layer
from sslkit.recipe.sections import InitFrom
from sslkit.recipe.signature import parameters
from sslkit.recipe.yaml_subset import parse_yaml

COMMAND_LINE = "command line"
"""The origin of overrides."""

FROM_A_PATH = "HuggingFaceImages"
"""The image source for ``data: FOLDER`` if that of the recipe takes no path."""

CLASS_NAME = re.compile(r"(?:[A-Za-z_]\w*[.:])*[A-Z]\w*")


class WrittenComponent(NamedTuple):
    """A component as plain data: the name of its class, and its arguments."""

    name: str
    arguments: Mapping[str, Any]


def as_component(value: object) -> WrittenComponent | None:
    """Return the component that a value is, or None.

    Args:
        value: plain data: ``Name``, ``{Name: {...}}``, ``{class_path: ..., init_args: ...}`` or anything else.
    """
    if isinstance(value, str) and CLASS_NAME.fullmatch(value):
        return WrittenComponent(value, {})
    if not isinstance(value, Mapping):
        return None
    if "class_path" in value and set(value) <= {"class_path", "init_args"}:
        return WrittenComponent(str(value["class_path"]), value.get("init_args") or {})
    if len(value) == 1:
        ((name, arguments),) = value.items()
        if CLASS_NAME.fullmatch(str(name)) and (arguments is None or isinstance(arguments, Mapping)):
            return WrittenComponent(name, arguments or {})
    return None


def merge(lower: Any, upper: Any) -> Any:
    """Return a value merged over that of a lower layer, as the docstring of this module describes."""
    if not isinstance(lower, Mapping) and not isinstance(upper, Mapping):
        return upper
    # Names without their module, so that a class by its path merges with the same class by its name.
    held, named = as_component(lower), as_component(upper)
    if held and named and held.name.rpartition(".")[2] == named.name.rpartition(".")[2]:
        return {named.name: merge(held.arguments, named.arguments)}
    if named or not isinstance(upper, Mapping):
        return upper
    if held:
        return {held.name: merge(held.arguments, upper)}
    if not isinstance(lower, Mapping):
        return upper
    return {**lower, **{key: merge(lower[key], value) if key in lower else value for key, value in upper.items()}}


def merge_layers(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the merged layers as plain data, ``data.test`` completed from ``data.train``.

    Args:
        layers: the lowest first.
    """
    values: dict[str, Any] = {}
    for layer in layers:
        values = merge(values, _with_weights(_with_data_path(layer.values, values)))
    data = values.get("data")
    if isinstance(data, Mapping) and data.get("test") is not None and "train" in data:
        values["data"] = {**data, "test": merge(data["train"], data["test"])}
    return values


def command_line_overlay(layers: Sequence[Layer]) -> dict[str, Any]:
    """Return the overrides of the command line as the content of a recipe file based on the other layers."""
    files = [layer for layer in layers if layer.origin != COMMAND_LINE]
    overlay: dict[str, Any] = _difference(merge_layers(files), merge_layers(layers))
    data = [layer.values["data"] for layer in layers if layer.origin == COMMAND_LINE and "data" in layer.values]
    if len(data) == 1 and isinstance(data[0], str):
        # The short form again: the long one would fix the test split, which is chosen from those that the folder has.
        overlay["data"] = data[0]
    return overlay


def _difference(lower: Any, upper: Any) -> Any:
    if not (isinstance(lower, Mapping) and isinstance(upper, Mapping)):
        return upper
    return {key: _difference(lower.get(key), value) for key, value in upper.items() if lower.get(key, ...) != value}


def origins_of(key: str, layers: Sequence[Layer]) -> list[str]:
    """Return the origins of the layers that contain a dotted key, the lowest layer first, each origin once."""
    return list(dict.fromkeys(layer.origin for layer in layers if _contains(layer.values, key.split("."))))


def leaves_test_split_open(layers: Sequence[Layer], values: Mapping[str, Any]) -> bool:
    """Whether the test images come from ``data: FOLDER`` and no layer above it chooses their split.

    Args:
        layers: the lowest first.
        values: the merged layers.
    """
    places = [i for i, layer in enumerate(layers) if isinstance(layer.values.get("data"), str)]
    test = as_component(values["data"].get("test")) if places else None
    if test is None or test.arguments.get("path") != layers[places[-1]].values["data"]:
        return False
    writers = [layer for i, layer in enumerate(layers) if i > places[-1] or layer.origin == COMMAND_LINE]
    return not any(_contains(layer.values, ["data", "test"]) for layer in writers)


def read_overrides(words: Sequence[str]) -> list[Layer]:
    """Return the layers of overrides.

    Args:
        words: of a command line, ``--key value`` or ``--key=value``; values are YAML.

    Raises:
        RecipeError: a word is not of this form, or a value is not YAML.
    """
    return [override(key, value) for key, value in _pairs(words)]


def override(key: str, value: Any) -> Layer:
    """Return the layer that sets one dotted key."""
    for part in reversed(key.split(".")):
        value = {part: value}
    return Layer(COMMAND_LINE, value)


def _pairs(words: Sequence[str]) -> Iterator[tuple[str, Any]]:
    rest = list(words)
    while rest:
        word = rest.pop(0)
        key, equals, text = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not key:
            raise RecipeError(f"{shown(word)} is not an override, which is written --section.key value")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise RecipeError(f"--{key} needs a value")
            text = rest.pop(0)
        yield key, text if _is_undecoded(text) else parse_yaml(text, f"--{key} {shown(text)}")


def _is_undecoded(text: str) -> bool:
    """Return whether a word holds bytes that are no text here, as a path may, which YAML cannot hold."""
    return any("\udc80" <= character <= "\udcff" for character in text)


def _contains(value: Any, parts: Sequence[str]) -> bool:
    component = as_component(value)
    value = component.arguments if component else value
    return not parts or (isinstance(value, Mapping) and parts[0] in value and _contains(value[parts[0]], parts[1:]))


def _with_data_path(layer: Mapping[str, Any], lower: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a layer with ``data: FOLDER`` written as a section.

    The folder becomes the path of train, and of test if both had the same path. If the source of the recipe takes no
    path, such as that of quickstart, `FROM_A_PATH` replaces it. ``num_images`` becomes null, since it was that of other
    images.

    Args:
        layer: to rewrite.
        lower: the merged layers below it.
    """
    folder = layer.get("data")
    if not isinstance(folder, str):
        return layer
    held = lower.get("data")
    train, test = (as_component(held.get(part)) if isinstance(held, Mapping) else None for part in ("train", "test"))
    if train and not _takes_path(train):
        named = {FROM_A_PATH: {"path": folder}}
        replaced = {"train": named, "test": merge(named, {"split": "test"}) if test else None, "num_images": None}
        return {**layer, "data": replaced}
    sources: dict[str, Any] = {"train": {"path": folder}}
    if train and test and test.arguments.get("path") and test.arguments["path"] == train.arguments.get("path"):
        sources["test"] = {"path": folder}
    return {**layer, "data": {**sources, "num_images": None}}


def _with_weights(layer: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a layer with ``init_from: WEIGHTS`` written as a section."""
    method = layer.get("method")
    weights = method.get("init_from") if isinstance(method, Mapping) else None
    if not isinstance(method, Mapping) or not isinstance(weights, str):
        return layer
    # With every default, so that no option of a lower layer, for other weights, is merged.
    return {**layer, "method": {**method, "init_from": asdict(InitFrom(weights))}}


def _takes_path(source: WrittenComponent) -> bool:
    registry = active().registry
    name = source.name.rpartition(".")[2]
    if not registry.find("image_sources", name):
        return True
    return "path" in parameters(registry.get("image_sources", name))
