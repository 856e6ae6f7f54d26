"""Apply the changes that components recommend, until none is left, and write them as a recipe."""

import os
import shlex
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from sslkit.errors import SSLKitError
from sslkit.explain.recommendations import recommendations, run_context
from sslkit.recipe.files import builtin_recipes
from sslkit.recipe.layers import command_line_overlay, override
from sslkit.recipe.loading import Recipe, from_layers
from sslkit.recommendation import Recommendation

MOST = 20
"""Largest number of changes to a recipe."""


def changed(recipe: Recipe, changes: Mapping[str, Any]) -> Recipe:
    """Return a recipe with more overrides: values by dotted key.

    Raises:
        SSLKitError: it cannot be run with them.
    """
    return from_layers([*recipe.layers, *(override(key, value) for key, value in changes.items())], recipe.name)


def propose(recipe: Recipe, num_images: int, processes: int = 1) -> tuple[list[Recommendation], Recipe]:
    """Return the recommendations that propose a change, and the recipe with all these changes, for which none is left.

    They are made one after the other, because one change may settle another recommendation, or raise it.

    Args:
        recipe: what is judged.
        num_images: training images.
        processes: that share each batch.
    """
    settled: list[Recommendation] = []
    while len(settled) < MOST:
        builder, made = recipe.builder(), [recommendation.changes for recommendation in settled]
        found = recommendations(recipe, builder, run_context(builder, num_images, processes))
        recommendation = next((each for each in found if each.changes and each.changes not in made), None)
        if recommendation is None:
            break
        settled.append(recommendation)
        recipe = changed(recipe, recommendation.changes)
    return settled, recipe


def check_new_file(file: Path) -> None:
    """Refuse, before the work, a file that could not be written afterwards.

    Raises:
        SSLKitError: the file is there, is no YAML file, or has no folder.
    """
    if file.suffix not in (".yaml", ".yml"):
        raise SSLKitError(f"--apply {file}: a recipe is a YAML file, such as {file.with_suffix('.yaml')}")
    if file.exists():
        raise SSLKitError(f"--apply {file} is there already and stays as it is; take another name")
    if not file.parent.is_dir():
        raise SSLKitError(f"--apply {file}: there is no folder {file.parent}")


def apply_to(file: Path, recipe: Recipe, base: str, settled: Sequence[Recommendation]) -> str:
    """Write a recipe file that lays a command line, and what was proposed, over another recipe; say what was done.

    Args:
        file: where.
        recipe: with everything, as `propose` returns it.
        base: the name or the file of what is overlaid.
        settled: the reasons; without any nothing is written.
    """
    if not settled:
        return f"There is nothing to propose: {file} was not written."
    file.write_text(_as_overlay(recipe, base, settled, file), encoding="utf-8")
    return f"Written: {file}"


def _as_overlay(recipe: Recipe, base: str, settled: Sequence[Recommendation], file: Path) -> str:
    name = base if base in builtin_recipes() else os.path.relpath(Path(base).expanduser(), file.parent)
    values = command_line_overlay(recipe.layers)
    if isinstance(values.get("data"), str) and (folder := Path(values["data"]).expanduser()).exists():
        values["data"] = str(folder.absolute())
    wrap = textwrap.TextWrapper(110, initial_indent="#   - ", subsequent_indent="#     ")
    reasons = (wrap.fill(f"{recommendation.reason}.") for recommendation in settled)
    text = yaml.safe_dump({"base": name, **values}, sort_keys=False, default_flow_style=None, width=100)
    header = [f"# {recipe.name}, adapted by sslkit explain.", f"# Run     sslkit train {shlex.quote(str(file))}"]
    return "\n".join([*header, f"# Differs from {name}", *reasons, text])
