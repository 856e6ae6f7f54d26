"""Proposals: the changes that components recommend, applied until no new one is left, and written as a recipe file."""

import os
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sslkit.errors import SSLKitError
from sslkit.explain.recommendations import recommendations, run_context
from sslkit.paths import local_path
from sslkit.recipe.files import builtin_recipes
from sslkit.recipe.layers import command_line_overlay, override
from sslkit.recipe.loading import Recipe, from_layers
from sslkit.recommendation import Recommendation

MAX_CHANGES = 20
"""Upper bound on applied recommendations, since a component could recommend another value each time."""


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return a recipe with further overrides.

    Args:
        recipe: the recipe, which stays as it is.
        changes: values by dotted recipe key.

    Raises:
        SSLKitError: an override does not fit the recipe.
    """
    return from_layers([*recipe.layers, *(override(key, value) for key, value in changes.items())], recipe.name)


def propose(recipe: Recipe, num_images: int, processes: int = 1) -> tuple[list[Recommendation], Recipe]:
    """Apply the changes that components recommend, one recommendation after the other, until no new one is left.

    Args:
        recipe: the recipe, which stays as it is.
        num_images: number of training images.
        processes: processes that share each batch.

    Returns:
        The recommendations that were applied, in order, and the recipe with their changes.
    """
    applied: list[Recommendation] = []
    while len(applied) < MAX_CHANGES:
        # Computed again after each change, which may make another one needless or needed.
        builder, made = recipe.builder(), [recommendation.changes for recommendation in applied]
        found = recommendations(recipe, builder, run_context(builder, num_images, processes))
        # Applied once only: a component may repeat its recommendation whatever the value is.
        recommendation = next((each for each in found if each.changes and each.changes not in made), None)
        if recommendation is None:
            break
        applied.append(recommendation)
        recipe = changed(recipe, recommendation.changes)
    return applied, recipe


def check_new_file(file: Path) -> None:
    """Check that the file of ``--apply`` can be written, before the time is spent on proposals.

    Raises:
        SSLKitError: the file exists already, is not named .yaml or .yml, or its folder does not exist.
    """
    if file.suffix not in (".yaml", ".yml"):
        raise SSLKitError(f"--apply {file}: a recipe is a YAML file, such as {file.with_suffix('.yaml')}")
    if file.exists():
        raise SSLKitError(f"--apply {file} exists already and is not overwritten; choose another name")
    if not file.parent.is_dir():
        raise SSLKitError(f"--apply {file}: there is no folder {file.parent}")


def write_overlay(file: Path, recipe: Recipe, base: str, applied: Sequence[Recommendation]) -> str:
    """Write a recipe file with a base and, over it, the overrides of the command line and the proposals.

    Args:
        file: the recipe file to write.
        recipe: the recipe with the proposals applied, as `propose` returns it.
        base: name or file of the recipe that was explained.
        applied: the recommendations, whose reasons stand in the header; without any, nothing is written.

    Returns:
        One line about what was done.
    """
    if not applied:
        return f"There is nothing to propose: {file} was not written."
    file.write_text(_as_overlay(recipe, base, applied, file), encoding="utf-8")
    return f"Written: {file}"


def _as_overlay(recipe: Recipe, base: str, applied: Sequence[Recommendation], file: Path) -> str:
    # A base is resolved from the folder of the file that names it.
    name = base if base in builtin_recipes() else os.path.relpath(local_path(base), file.parent)
    values = command_line_overlay(recipe.layers)
    if isinstance(values.get("data"), str) and (folder := local_path(values["data"])).exists():
        # An image folder, unlike a base, is resolved from the working directory.
        values["data"] = str(folder.absolute())
    wrap = textwrap.TextWrapper(110, initial_indent="#   - ", subsequent_indent="#     ")
    reasons = (wrap.fill(f"{recommendation.reason}.") for recommendation in applied)
    text = yaml.safe_dump({"base": name, **values}, sort_keys=False, default_flow_style=None, width=100)
    header = [f"# {recipe.name}, adapted by sslkit explain.", f"# Run     sslkit train {shlex.quote(str(file))}"]
    return "\n".join([*header, f"# Differs from {name}", *reasons, text])
