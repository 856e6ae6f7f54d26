"""What a recipe will do, told without running it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from sslkit.cli.explanation.counsel import show_proposals, show_warnings
from sslkit.cli.explanation.course import part_facts, show_course, show_durations
from sslkit.cli.explanation.facts import cost_facts, network_facts, time_facts
from sslkit.cli.explanation.slots import show_slots
from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError
from sslkit.explain.proposals import apply_to, changed, check_new_file, propose
from sslkit.explain.recommendations import concerns, setting_of
from sslkit.recipe import Recipe
from sslkit.recipe.build import Builder
from sslkit.recipe.validation import check_sizes, validate
from sslkit.recommendation import Setting


@dataclass(frozen=True)
class Wishes:
    """What a recipe is explained for.

    Args:
        num_images: training images; None counts the recipe's.
        processes: that train together.
        apply: a recipe file that the proposals are written to, or None.
    """

    num_images: int | None = None
    processes: int = 1
    apply: Path | None = None


def explain(recipe: Recipe, words: Sequence[str], wishes: Wishes) -> None:
    """Print a recipe's parts, its course, what speaks against it, and what would settle that.

    Images are neither read nor needed where their number is known.

    Args:
        recipe: what to explain.
        words: the name or the file that it was read from, and the overrides.
        wishes: what it is explained for.

    Raises:
        SSLKitError: parts that do not fit together, or proposals that cannot be written.
    """
    if wishes.apply is not None:
        check_new_file(wishes.apply)
    if wishes.num_images is not None:
        recipe = changed(recipe, {"data.num_images": wishes.num_images})
    screen, builder = Screen(), recipe.builder()
    _check(recipe, builder, wishes)
    num_images, counted = _num_images(builder, wishes)
    if num_images is None and wishes.apply is not None:
        raise SSLKitError("--apply: what to propose depends on the number of images; --num-images N tells it")
    show_slots(screen, recipe)
    screen.gap()
    setting = setting_of(builder, num_images, wishes.processes) if num_images is not None else None
    told = part_facts(builder, setting) if setting is not None else {}
    constant = ((name.capitalize(), phrases[0]) for name, phrases in told.items() if len({*phrases}) == 1)
    time, costs = time_facts(builder, num_images, counted, wishes.processes), cost_facts(builder, wishes.processes)
    screen.columns([*network_facts(builder), *time, *constant, *costs], styles=("bold", ""))
    if setting is not None:
        show_course(screen, builder, setting.clock, told)
        show_durations(screen, recipe, setting.clock)
        _advise(screen, recipe, builder, words, setting, wishes.apply)


def _advise(
    screen: Screen, recipe: Recipe, builder: Builder, words: Sequence[str], setting: Setting, file: Path | None
) -> None:
    """Print what speaks against the recipe and what would settle it, and write the latter where a file is named."""
    found = concerns(recipe, builder, setting)
    show_warnings(screen, found)
    settled, mended = propose(recipe, setting.num_images, setting.processes)
    show_proposals(screen, settled, found, words)
    if file is not None:
        screen.gap()
        screen.text(apply_to(file, mended, words[0], settled))


def _check(recipe: Recipe, builder: Builder, wishes: Wishes) -> None:
    """Refuse what training would refuse before it reads an image."""
    check_sizes(builder.part("views"), builder.part("method.backbone"), recipe.root.at("views"))
    part = builder.part
    validate(part("method"), part("views"), part("optimization"), part("runtime"), wishes.processes)


def _num_images(builder: Builder, wishes: Wishes) -> tuple[int | None, str]:
    """Return how many images an epoch has and who says so, or None and why nobody can."""
    if wishes.num_images is not None:
        return wishes.num_images, "--num-images"
    if (number := builder.part("data.num_images")) is not None:
        return number, "data.num_images"
    try:
        return len(builder.part("data.train")), "data.train"
    except SSLKitError as error:
        return None, str(error)
