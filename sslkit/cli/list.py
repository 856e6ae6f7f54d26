"""``sslkit list``: list components and recipes, importing no component until one is asked for by name."""

from argparse import Namespace
from pathlib import Path

from rich.text import Text

from sslkit.cli.parser import CommandParser
from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError
from sslkit.hookspecs import KINDS, Kind
from sslkit.plugins import OWN, active
from sslkit.progress import loading
from sslkit.recipe.files import builtin_recipes
from sslkit.registry import Entry, Registry, kind_of

RECIPES = ("recipe", "recipes")

EXAMPLES = """\
sslkit list
sslkit list collapse-operators
sslkit list losses CrossEntropy"""


def add_arguments(parser: CommandParser) -> None:
    """Declare what the command takes."""
    parser.describe("a KIND and a NAME", "the components and recipes there are", EXAMPLES)
    parser.add_argument("kind", metavar="KIND", nargs="?", help="one kind instead of all")
    parser.add_argument("name", metavar="NAME", nargs="?", help="one component: what it does and takes")
    parser.add_table("Arguments", "", lambda: [(str(each.metavar), each.help or "") for each in parser.positionals()])
    parser.add_table("Kinds", "", lambda: [(name, "") for name in kind_names()])


def kind_names() -> list[str]:
    """Return the kinds that can be listed."""
    return [RECIPES[-1], *(kind.command for kind in KINDS)]


def run(args: Namespace) -> int:
    """List components by kind, one kind, or describe one component."""
    screen, registry = Screen(), active().registry
    if args.name and args.kind in RECIPES:
        raise SSLKitError(f"sslkit list explains components; what a recipe does: sslkit explain {args.name}")
    if args.name:
        with loading():
            from sslkit.cli.describe import describe

        describe(screen, kind_of(args.kind), args.name, registry)
    elif args.kind in RECIPES:
        _recipes(screen)
    elif args.kind:
        _kind(screen, kind_of(args.kind), registry)
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
    screen.heading("recipes", "sslkit explain RECIPE explains one")
    screen.columns((name, summary(file)) for name, file in builtin_recipes().items())


def summary(recipe: Path) -> str:
    """Return the first line of a recipe's opening comment."""
    first = recipe.read_text(encoding="utf-8").partition("\n")[0]
    return first.lstrip("# ").strip() if first.startswith("#") else ""
