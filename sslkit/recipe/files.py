"""Find and read recipe files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sslkit.errors import RecipeError, UnknownName

SCHEMA_KEY = "$schema"
"""Where editors look for the schema of a file; it means nothing to a recipe."""

NO_MERGE_KEYS = (
    "the merge key << is not read, as releases of PyYAML give it different meanings: "
    "write base: NAME to start from another recipe, or repeat the keys"
)


class Layer(NamedTuple):
    """Values and where they were written: a file, or the command line."""

    origin: str
    values: Mapping[str, Any]


def read_layers(name: str | Path) -> list[Layer]:
    """Read a recipe and the recipes that it is based on, the lowest first.

    Raises:
        RecipeError: a file is no recipe, or recipes overlay one another in a circle.
        UnknownName: there is no such recipe.
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
        following, place = values.pop("base", None), file.parent
        layers.insert(0, Layer(_shown(file), values))
    return layers


def find(name: str | Path, place: Path) -> Path:
    """Return the file of a recipe: a path (from the folder ``place``) or the name of a built-in one."""
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
    """Return the recipes that come with the package, by name."""
    package = Path(__file__).parents[1]
    folder = next((f for f in (package / "recipes", package.parent / "recipes") if f.is_dir()), package)
    return {file.stem: file.resolve() for file in sorted(folder.rglob("*.yaml"), key=lambda file: file.stem)}


def _shown(file: Path) -> str:
    """Return a file as a person would name it from here."""
    here = Path.cwd().resolve()
    return str(file.relative_to(here) if file.is_relative_to(here) else file)


def read_yaml(file: Path) -> dict[str, Any]:
    """Read a recipe file as it is written.

    Raises:
        RecipeError: it is not text, not YAML, says a key twice, holds a merge key, or is not a mapping.
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
    """Return, in one line, what is wrong with a text that `YamlLoader` could not read."""
    problem = " ".join(str(getattr(error, "problem", None) or error).split())
    return problem if isinstance(error, RefusedYaml) else f"not valid YAML: {problem}"


class RefusedYaml(yaml.constructor.ConstructorError):
    """YAML that other programs accept and a recipe does not."""


class YamlLoader(yaml.SafeLoader):
    """YAML in which 1e-3 is a number, only true and false are truth values, and a key stands once.

    Merge keys are refused: of ``<<: [*a, *b]`` the first wins in PyYAML 6.0.3 and the last in 6.0.4.
    """

    def compose_scalar_node(self, anchor: Any) -> yaml.ScalarNode:
        spec = super().compose_scalar_node(anchor)
        if spec.tag == "tag:yaml.org,2002:merge":  # Not so a quoted "<<", which is a key like any other.
            raise RefusedYaml(None, None, NO_MERGE_KEYS, spec.start_mark)
        return spec

    def construct_mapping(self, spec: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in spec.value:
            if not isinstance(key, yaml.ScalarNode):
                continue
            if key.value in seen:
                raise RefusedYaml(None, None, f"the key {key.value!r} stands twice", key.start_mark)
            seen.add(key.value)
        return super().construct_mapping(spec, deep)


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
