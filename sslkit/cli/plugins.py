"""``sslkit plugins``: who offers components, and what failed to load."""

from collections.abc import Sequence

from rich.text import Text

from sslkit.cli.screen import Screen
from sslkit.errors import SSLKitError
from sslkit.hookspecs import KINDS
from sslkit.plugins import OWN, Plugin, Plugins, active


def run(argv: Sequence[str]) -> int:
    """List the plugins; failing ones come with their traceback."""
    if argv and argv[0] not in ("-h", "--help"):
        raise SSLKitError(f"sslkit plugins takes no argument, not {argv[0]!r}")
    plugins, screen = active(), Screen()
    screen.heading("Plugins", "what they offer: sslkit list · how to write one: docs/plugins.md")
    screen.columns((_row(plugin, plugins) for plugin in plugins.found), styles=("cyan", "", "", "dim"))
    for plugin in plugins.found:
        if plugin.error:
            screen.gap()
            screen.heading(f"{plugin.name} did not load", plugin.origin)
            screen.text(Text(plugin.error.rstrip(), "red"))
    return 0


def _row(plugin: Plugin, plugins: Plugins) -> tuple[str | Text, ...]:
    if plugin.error:
        return plugin.name, plugin.origin, Text("failed", "red"), ""
    if plugin.disabled:
        return plugin.name, plugin.origin, Text("disabled", "yellow"), "by SSLKIT_DISABLE_PLUGINS"
    entries = [e for kind in KINDS for e in plugins.registry.entries(kind.hook) if e.plugin == plugin.name]
    count = f"{len(entries)} component{'' if len(entries) == 1 else 's'}"
    return plugin.name, plugin.origin, count, "" if plugin.name == OWN else ", ".join(entry.name for entry in entries)
