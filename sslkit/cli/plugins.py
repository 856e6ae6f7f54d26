"""``sslkit plugins``: list plugins, their components, and why one failed to load."""

from argparse import Namespace

from rich.text import Text

from sslkit.cli.parser import CommandParser
from sslkit.cli.screen import Screen
from sslkit.hookspecs import KINDS
from sslkit.plugins import OWN, Plugin, Plugins, active


def add_arguments(parser: CommandParser) -> None:
    """Declare what the command takes."""
    parser.describe("no argument", "plugins and what they offer, and why one failed to load", "sslkit plugins")


def run(args: Namespace) -> int:
    """List the plugins; failing ones come with their traceback."""
    plugins, screen = active(), Screen()
    screen.heading("Plugins", "what they offer: sslkit list · how to write one: docs/plugins.md")
    screen.columns((plugin.name, _said(plugin, plugins)) for plugin in plugins.found)
    for plugin in plugins.found:
        if plugin.error:
            screen.gap()
            screen.heading(f"{plugin.name} did not load", plugin.origin)
            screen.text(Text(plugin.error.rstrip(), "red"))
    return 0


def _said(plugin: Plugin, plugins: Plugins) -> Text:
    """Return where a plugin comes from, unless its name says it, and what it offers."""
    origin = f"{plugin.origin} · " if plugin.origin != plugin.name else ""
    if plugin.error:
        return Text.assemble(origin, ("failed", "red"))
    if plugin.disabled:
        return Text.assemble(origin, ("disabled", "yellow"), " by SSLKIT_DISABLE_PLUGINS")
    entries = [e for kind in KINDS for e in plugins.registry.entries(kind.hook) if e.plugin == plugin.name]
    names = "" if plugin.name == OWN else f": {', '.join(entry.name for entry in entries)}"
    return Text.assemble(f"{origin}{len(entries)} component{'' if len(entries) == 1 else 's'}", (names, "dim"))
