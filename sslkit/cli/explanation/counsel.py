"""What speaks against a recipe, and what would settle it."""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich.text import Text

from sslkit.cli.arguments import plugin_words, take_option
from sslkit.cli.screen import Screen
from sslkit.recipe.layers import as_component
from sslkit.recommendation import Concern, overrides


def show_warnings(screen: Screen, found: Iterable[Concern]) -> None:
    """Print the reasons to expect a failure, if there are any."""
    warnings = [concern for concern in found if concern.is_warning]
    if warnings:
        screen.gap()
        screen.heading("Warnings")
        screen.columns((("-", _said(concern)) for concern in warnings), styles=("yellow", "yellow"))


def show_proposals(screen: Screen, settled: Sequence[Concern], warned: Iterable[Concern], words: Sequence[str]) -> None:
    """Print the changes that settle concerns, as a command.

    Args:
        screen: where.
        settled: the concerns, with their changes.
        warned: the concerns that `show_warnings` has said already.
        words: the recipe and the overrides that were explained.
    """
    if not settled:
        return
    screen.gap()
    screen.heading("Proposals", "--apply FILE.yaml writes them as a recipe")
    said = {concern.reason for concern in warned if concern.is_warning}
    new = [concern for concern in settled if concern.reason not in said]
    if new:
        screen.columns((("-", _said(concern)) for concern in new), styles=("cyan", ""))
    changes = {key: value for concern in settled for key, value in concern.changes.items()}
    command = shlex.join(["sslkit", "train", *_without(words, changes), *plugin_words()])
    screen.code(" \\\n    ".join([command, *overrides(changes)]))


def _without(words: Sequence[str], changes: Mapping[str, Any]) -> list[str]:
    """Leave out the overrides that a change replaces; those that it may merge with stay."""
    kept = list(words)
    for key, value in changes.items():
        if not isinstance(value, Mapping) and as_component(value) is None:
            take_option(kept, f"--{key}")
    return kept


def _said(concern: Concern) -> Text:
    return Text.assemble(concern.reason, (f" ({concern.source})" if concern.source else "", "dim"))
