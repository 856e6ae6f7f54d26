"""Print what one component, or one key of a recipe, takes."""

import dataclasses
import inspect
import re
from typing import Any

from rich.text import Text

from sslkit.cli.screen import Screen
from sslkit.hookspecs import Kind
from sslkit.recipe.keys import find_key
from sslkit.recipe.links import LINKS
from sslkit.recipe.serialize import plain
from sslkit.recipe.signature import REQUIRED, Parameter, parameters
from sslkit.recipe.type_hints import item_hint, kind_in, phrase, section_in
from sslkit.recommendation import one_line
from sslkit.registry import Registry


def describe(screen: Screen, kind: Kind, name: str, registry: Registry) -> None:
    """Print a component's docstring and arguments."""
    found = registry.get(kind.hook, name)
    entry = registry.find(kind.hook, name)
    screen.heading(name, f"{kind.singular} · {entry.origin if entry else found.__module__}")
    text = inspect.getdoc(found) or ""
    for section in ("Args:", "Raises:", "Attributes:", "Returns:"):
        text = text.partition(f"\n{section}\n")[0]
    # Paragraphs are wrapped anew; indented lines and lists stay as they are.
    screen.text(spoken(re.sub(r"(?m)^(?! )(.*\S)\n(?=[^\s*-])", r"\1 ", text.strip())))
    screen.gap()
    links = {link.target.rpartition(".")[2]: link.source for link in LINKS if _owner_kind(link.target) == kind}
    _arguments(screen, found, links, registry)


def describe_key(screen: Screen, key: str, registry: Registry) -> None:
    """Print what a recipe key takes: a section's keys, the components that fit, or a type.

    Raises:
        SSLKitError: there is no such key.
    """
    hint, doc = find_key(key)
    kind = kind_in(hint) or kind_in(item_hint(hint))
    if kind:
        screen.heading(key, spoken(doc))
        screen.columns((entry.name, entry.summary) for entry in registry.entries(kind.hook))
        screen.text(Text(f"sslkit list {kind.command} NAME says what one takes", "dim"))
    elif section := section_in(hint):
        screen.heading(key or "a recipe", spoken(doc))
        _arguments(screen, section, {}, registry)
    else:
        screen.heading(key, phrase(hint))
        screen.text(spoken(doc))


def _owner_kind(argument: str) -> Kind | None:
    """Return the kind of component that takes an argument, by its key."""
    return kind_in(find_key(argument.rpartition(".")[0])[0])


def _arguments(screen: Screen, cls: Any, links: dict[str, str], registry: Registry) -> None:
    rows = [(p.name, _default(p, links, registry), _meaning(p)) for p in parameters(cls).values()]
    screen.columns(rows, styles=("cyan", "", ""))


def _default(parameter: Parameter, links: dict[str, str], registry: Registry) -> Text:
    if parameter.name in links:
        return Text(f"from {links[parameter.name]}", "green")
    if parameter.default is REQUIRED:
        return Text("required", "yellow")
    if dataclasses.is_dataclass(parameter.hint):
        return Text("")
    try:
        return Text(one_line(plain(parameter.default, registry)))
    except TypeError:
        return Text(str(parameter.default))


def _meaning(parameter: Parameter) -> Text:
    kind = None if parameter.hint is Any or dataclasses.is_dataclass(parameter.hint) else phrase(parameter.hint)
    return Text.assemble(spoken(parameter.doc), (f" ({kind})" if kind else "", "dim"))


def spoken(text: str) -> str:
    """Return a docstring's text without its backticks."""
    return text.replace("`", "")
