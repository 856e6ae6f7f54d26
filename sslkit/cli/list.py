"""``sslkit list``: the components and recipes there are. Imports no component until one is asked for by name."""

from collections.abc import Sequence
from pathlib import Path

from rich.text import Text

from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError
from sslkit.hookspecs import KINDS, Kind
from sslkit.plugins import OWN, active
from sslkit.recipe.files import builtin_recipes
from sslkit.registry import Entry, Registry, kind_of

RECIPES = ("recipe", "recipes")

USAGE = """\
sslkit list                everything
sslkit list KIND           one kind
sslkit list KIND NAME      one component: what it does and takes

Kinds: recipes, {kinds}"""


def run(argv: Sequence[str]) -> int:
    """List components by kind, one kind, or describe one component."""
    screen, registry = Screen(), active().registry
    if argv and argv[0] in ("-h", "--help"):
        screen.heading("sslkit list", "the components and recipes there are")
        screen.text(USAGE.format(kinds=", ".join(kind.command for kind in KINDS)))
        return 0
    if len(argv) > 2:
        raise SSLKitError(f"sslkit list takes a kind and a name, not {' '.join(argv)!r}")
    if len(argv) == 2 and argv[0] in RECIPES:
        raise SSLKitError(f"sslkit list says what components take; what a recipe does: sslkit explain {argv[1]}")
    if len(argv) == 2:
        from sslkit.cli.describe import describe

        describe(screen, kind_of(argv[0]), argv[1], registry)
    elif argv and argv[0] in RECIPES:
        _recipes(screen)
    elif argv:
        _kind(screen, kind_of(argv[0]), registry)
    else:
        _recipes(screen)
        for kind in KINDS:
            if registry.names(kind.hook):
                screen.gap()
                _kind(screen, kind, registry)
    failed = [plugin.name for plugin in active().found if plugin.error]
    if failed:
        screen.gap()
        screen.text(Text(f"not here: {', '.join(failed)}, which did not load; sslkit plugins says why", "yellow"))
    return 0


def _kind(screen: Screen, kind: Kind, registry: Registry) -> None:
    entries = registry.entries(kind.hook)
    screen.heading(kind.command)
    screen.columns((entry.name, _said(entry)) for entry in entries)


def _said(entry: Entry) -> Text:
    origin = "" if entry.plugin == OWN else f"({entry.origin})"
    return Text(" ").join(filter(None, (Text(entry.summary), Text(origin, "dim"))))


def _recipes(screen: Screen) -> None:
    screen.heading("recipes", "sslkit explain RECIPE says what one does")
    screen.columns((name, summary(file)) for name, file in builtin_recipes().items())


def summary(recipe: Path) -> str:
    """Return the first line of a recipe's opening comment."""
    first = recipe.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""
