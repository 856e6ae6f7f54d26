"""Print the report of ``sslkit explain``."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.text import Text

from sslkit import __version__
from sslkit.cli.arguments import plugin_words
from sslkit.cli.parser import take_option
from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError
from sslkit.explain.components import component_rows
from sslkit.explain.proposals import changed, check_new_file, propose, write_overlay
from sslkit.explain.recommendations import recommendations, run_context
from sslkit.explain.schedules import MOMENTS, component_descriptions, duration_rows, schedule_rows
from sslkit.explain.summary import cost_rows, network_rows, time_rows
from sslkit.plugins import OWN
from sslkit.progress import working
from sslkit.recipe import Recipe
from sslkit.recipe.build import Builder
from sslkit.recipe.layers import COMMAND_LINE, as_component
from sslkit.recipe.validation import check_parts_fit, check_sizes
from sslkit.recommendation import Recommendation, RunContext, overrides


@dataclass(frozen=True)
class ExplainOptions:
    """The options of ``sslkit explain``.

    Args:
        num_images: training images; None counts the recipe's.
        processes: that train together.
        apply: a recipe file that the proposals are written to, or None.
    """

    num_images: int | None = None
    processes: int = 1
    apply: Path | None = None


def explain(recipe: Recipe, words: Sequence[str], options: ExplainOptions) -> None:
    """Print a recipe's components, its schedules, warnings, and proposals.

    Images are neither read nor needed where their number is known.

    Args:
        recipe: what to explain.
        words: the name or the file that it was read from, and the overrides.
        options: what it is explained for.

    Raises:
        SSLKitError: parts that do not fit together, or proposals that cannot be written.
    """
    if options.apply is not None:
        check_new_file(options.apply)
    if options.num_images is not None:
        recipe = changed(recipe, {"data.num_images": options.num_images})
    screen, builder = Screen(), recipe.builder()
    with working("building the networks", plain=False):
        _check(builder, options)
        num_images, counted = _num_images(builder, options)
    if num_images is None and options.apply is not None:
        raise SSLKitError("--apply: what to propose depends on the number of images; add --num-images N")
    file = next(layer.origin for layer in reversed(recipe.layers) if layer.origin != COMMAND_LINE)
    screen.heading(recipe.name, file)
    screen.columns(((key, _with_origin(call, origin)) for key, call, origin in component_rows(recipe)))
    screen.gap()
    context = run_context(builder, num_images, options.processes) if num_images is not None else None
    descriptions = component_descriptions(builder, context) if context is not None else {}
    constant = ((name.capitalize(), phrases[0]) for name, phrases in descriptions.items() if len({*phrases}) == 1)
    with working("taking a step without content", plain=False):
        sizes = [*network_rows(builder), *time_rows(builder, num_images, counted, options.processes)]
        costs = [*cost_rows(builder, options.processes)]
    screen.columns([*sizes, *constant, *costs], styles=("bold", ""))
    if context is not None:
        screen.gap()
        header = Text("over the run", "bold"), *(Text(word, "dim") for word in MOMENTS)
        screen.columns([header, *schedule_rows(builder, context.clock, descriptions)], styles=("cyan", "", "", ""))
        _show_durations(screen, duration_rows(recipe, context.clock))
        _advise(screen, recipe, builder, words, context, options.apply)


def _with_origin(call: Text, origin: str) -> Text:
    """Return a component's call and, below it, where it comes from, unless that is sslkit alone.

    Not beside it: a path in a narrow column would be cut.
    """
    if origin == f"{OWN} {__version__}":
        return call
    return Text.assemble(call, "\n", (origin.replace("\n", " "), "dim"))


def _advise(
    screen: Screen, recipe: Recipe, builder: Builder, words: Sequence[str], context: RunContext, file: Path | None
) -> None:
    """Print warnings and proposals, and write the latter where a file is named."""
    found = recommendations(recipe, builder, context)
    _show_warnings(screen, found)
    applied, proposed = propose(recipe, context.num_images, context.processes)
    _show_proposals(screen, applied, found, words)
    if file is not None:
        screen.gap()
        screen.text(write_overlay(file, proposed, words[0], applied))


def _check(builder: Builder, options: ExplainOptions) -> None:
    """Refuse what training would refuse before it reads an image."""
    check_sizes(builder)
    check_parts_fit(builder, options.processes)


def _num_images(builder: Builder, options: ExplainOptions) -> tuple[int | None, str]:
    """Return how many images an epoch has and who says so, or None and why nobody can."""
    if options.num_images is not None:
        return options.num_images, "--num-images"
    if (number := builder.build("data.num_images")) is not None:
        return number, "data.num_images"
    try:
        return len(builder.build("data.train")), "data.train"
    except SSLKitError as error:
        return None, str(error)


def _show_durations(screen: Screen, rows: Sequence[Sequence[str]]) -> None:
    """Print the durations of a recipe, if there are any."""
    if rows:
        screen.gap()
        header = Text("durations", "bold"), *(Text(word, "dim") for word in ("steps", "epochs"))
        screen.columns([header, *rows], styles=("cyan", "", "", "dim"))


def _show_warnings(screen: Screen, found: Iterable[Recommendation]) -> None:
    """Print the reasons to expect a failure, if there are any."""
    warnings = [recommendation for recommendation in found if recommendation.is_warning]
    if warnings:
        screen.gap()
        screen.heading("Warnings")
        screen.columns((("-", _said(recommendation)) for recommendation in warnings), styles=("yellow", "yellow"))


def _show_proposals(
    screen: Screen, applied: Sequence[Recommendation], warned: Iterable[Recommendation], words: Sequence[str]
) -> None:
    """Print the changes that settle recommendations, as a command.

    Args:
        screen: where.
        applied: the recommendations, with their changes.
        warned: the recommendations that `_show_warnings` has said already.
        words: the recipe and the overrides that were explained.
    """
    if not applied:
        return
    screen.gap()
    screen.heading("Proposals", "--apply FILE.yaml writes them as a recipe")
    said = {recommendation.reason for recommendation in warned if recommendation.is_warning}
    new = [recommendation for recommendation in applied if recommendation.reason not in said]
    if new:
        screen.columns((("-", _said(recommendation)) for recommendation in new), styles=("cyan", ""))
    changes = {key: value for recommendation in applied for key, value in recommendation.changes.items()}
    command = shlex.join(["sslkit", "train", *_without(words, changes), *plugin_words()])
    screen.code(" \\\n    ".join([command, *overrides(changes)]))


def _without(words: Sequence[str], changes: Mapping[str, Any]) -> list[str]:
    """Leave out the overrides that a change replaces; those that it may merge with stay."""
    kept = list(words)
    for key, value in changes.items():
        if not isinstance(value, Mapping) and as_component(value) is None:
            take_option(kept, f"--{key}")
    return kept


def _said(recommendation: Recommendation) -> Text:
    return Text.assemble(recommendation.reason, (f" ({recommendation.source})" if recommendation.source else "", "dim"))
