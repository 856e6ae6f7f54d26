"""Reading of recipe files and of the recipes that they are based on."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from sslkit.errors import RecipeError, UnknownName, shown
from sslkit.paths import local_path
from sslkit.recipe.yaml_subset import MAX_BYTES, parse_yaml

SCHEMA_KEY = "$schema"
"""The key by which editors find the schema of a file; recipes ignore it."""


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
            raise RecipeError(
                f"{SCHEMA_KEY} is the path or address of a JSON schema, not {shown(schema)} ({_shown(file)})"
            )
        # A relative base is relative to the file that names it.
        following, place = values.pop("base", None), file.parent
        if not isinstance(following, str | None):
            raise RecipeError(f"base is the name or the file of a recipe, not {shown(following)} ({_shown(file)})")
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
        try:
            file = (place / local_path(text)).resolve()
            is_file = file.is_file()
        except (OSError, ValueError):
            # The system cannot have such a path: it is too long, or has a NUL.
            is_file = False
        if not is_file:
            names = ", ".join(builtin_recipes())
            raise RecipeError(f"there is no recipe file {shown(text)}. Built-in recipes: {names}.")
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
        RecipeError: it cannot be read, is not YAML that recipes allow, or is not a mapping.
    """
    try:
        with file.open("rb") as opened:
            # One byte more than is allowed shows that a file is too long, however long it is.
            text = opened.read(MAX_BYTES + 1)
    except OSError as error:
        raise RecipeError(f"{file} cannot be read: {error.strerror}") from None
    values = parse_yaml(text, str(file))
    if not isinstance(values, dict):
        raise RecipeError(f"{file} is not a recipe: a mapping of sections such as method, views and data")
    return values
