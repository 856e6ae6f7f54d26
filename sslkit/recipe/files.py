"""Reading of recipe files and of the recipes that they are based on."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sslkit.errors import RecipeError, UnknownName

SCHEMA_KEY = "$schema"
"""The key by which editors find the schema of a file; recipes ignore it."""

NO_MERGE_KEYS = (
    "the merge key << is not read, as releases of PyYAML give it different meanings: "
    "write base: NAME to start from another recipe, or repeat the keys"
)


class Layer(NamedTuple):
    """Values of one recipe file or of an override, with their origin: the file, or the command line."""

    origin: str
    values: Mapping[str, Any]


def read_layers(name: str | Path) -> list[Layer]:
    """Return the layers of a recipe and of its bases, the lowest base first.

    Args:
        name: of a built-in recipe, or a YAML file.

    Raises:
        RecipeError: a file is not a recipe, or bases form a circle.
        UnknownName: there is no built-in recipe of this name.
    """
    layers: list[Layer] = []
    chain: list[Path] = []
    place = Path.cwd()
    following: Any = name
    while following is not None:
        file = find(following, place)
        if file in chain:
            circle = " -> ".join(path.name for path in [*chain, file])
            raise RecipeError(f"base: these recipes overlay one another in a circle: {circle}")
        chain.append(file)
        values = read_yaml(file)
        schema = values.pop(SCHEMA_KEY, "")
        if not isinstance(schema, str):
            raise RecipeError(f"{SCHEMA_KEY} is the path or address of a JSON schema, not {schema!r} ({_shown(file)})")
        # A relative base is relative to the file that names it.
        following, place = values.pop("base", None), file.parent
        layers.insert(0, Layer(_shown(file), values))
    return layers


def find(name: str | Path, place: Path) -> Path:
    """Return the file of a recipe.

    Args:
        name: of a built-in recipe, or a YAML file.
        place: the folder that relative paths start from.

    Raises:
        RecipeError: there is no such file.
        UnknownName: there is no built-in recipe of this name.
    """
    text = str(name)
    if text.endswith((".yaml", ".yml")):
        file = (place / Path(text).expanduser()).resolve()
        if not file.is_file():
            raise RecipeError(f"there is no recipe file {text}. Built-in recipes: {', '.join(builtin_recipes())}.")
        return file
    builtin = builtin_recipes()
    if text not in builtin:
        raise UnknownName("recipe", text, builtin)
    return builtin[text]


def builtin_recipes() -> dict[str, Path]:
    """Return the files of the built-in recipes by name."""
    package = Path(__file__).parents[1]
    # In the package where it is installed from a wheel, beside it in a checkout.
    folder = next((f for f in (package / "recipes", package.parent / "recipes") if f.is_dir()), package)
    return {file.stem: file.resolve() for file in sorted(folder.rglob("*.yaml"), key=lambda file: file.stem)}


def _shown(file: Path) -> str:
    """Return a path for messages, relative to the working directory if the file is below it."""
    here = Path.cwd().resolve()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def read_yaml(file: Path) -> dict[str, Any]:
    """Return the content of a recipe file.

    Raises:
        RecipeError: it is not text, not YAML or not a mapping, or it has a repeated key or a merge key.
    """
    try:
        values = yaml.load(file.read_text(encoding="utf-8"), YamlLoader)
    except (OSError, UnicodeDecodeError, yaml.reader.ReaderError) as error:
        raise RecipeError(f"{file} cannot be read: a recipe is text in UTF-8 ({error})") from None
    except yaml.MarkedYAMLError as error:
        line = f":{error.problem_mark.line + 1}" if error.problem_mark else ""
        raise RecipeError(f"{file}{line}: {yaml_problem(error)}") from None
    if not isinstance(values, dict):
        raise RecipeError(f"{file} is not a recipe: a mapping of sections such as method, views and data")
    return values


def yaml_problem(error: yaml.YAMLError) -> str:
    """Return the error of `YamlLoader` as one line."""
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return problem if isinstance(error, RefusedYaml) else f"not valid YAML: {problem}"


class RefusedYaml(yaml.constructor.ConstructorError):
    """Valid YAML that recipes do not allow."""


class YamlLoader(yaml.SafeLoader):
    """YAML loader that reads 1e-3 as a number, takes only true and false as booleans, and refuses repeated keys.

    It also refuses merge keys: of ``<<: [*a, *b]`` the first wins in PyYAML 6.0.3 and the last in 6.0.4.
    """

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        node = super().compose_scalar_node(anchor)
        # The tag rather than the text: a quoted "<<" is a key like any other.
        if node.tag == "tag:yaml.org,2002:merge":
            raise RefusedYaml(None, None, NO_MERGE_KEYS, node.start_mark)
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        # PyYAML keeps the last of repeated keys without a message.
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise RefusedYaml(None, None, f"the key {key.value!r} appears twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(node, deep)


# PyYAML follows YAML 1.1, where 1e-3 is text, and yes, no, on and off are booleans.
_REPLACED = ("tag:yaml.org,2002:bool", "tag:yaml.org,2002:float")
YamlLoader.yaml_implicit_resolvers = {
    first: [(tag, pattern) for tag, pattern in rules if tag not in _REPLACED]
    for first, rules in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
YamlLoader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:bool", re.compile(r"(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
)
YamlLoader.add_implicit_resolver(  # type: ignore[no-untyped-call]
    "tag:yaml.org,2002:float",
    re.compile(r"(?:[-+]?(?:\d+\.\d*|\.\d+|\d+(?=[eE]))(?:[eE][-+]?\d+)?|[-+]?\.inf|\.nan)$"),
    list("-+0123456789."),
)
