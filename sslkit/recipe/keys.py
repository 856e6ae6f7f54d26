"""Look up a recipe key: its type, its documentation, and the kind of component that fits."""

from typing import Any

from sslkit.errors import SSLKitError, did_you_mean
from sslkit.hookspecs import Kind
from sslkit.recipe.sections import BuiltRecipe
from sslkit.recipe.signature import parameters
from sslkit.recipe.type_hints import item_hint, kind_in, phrase, section_in


def find_key(key: str) -> tuple[Any, str]:
    """Return the type of a recipe key and what the section's docstring says of it.

    Args:
        key: dotted; the empty one is the whole recipe.

    Raises:
        SSLKitError: there is no such key.
    """
    hint: Any = BuiltRecipe
    doc = ""
    for part in filter(None, key.split(".")):
        section = section_in(hint)
        known = parameters(section) if section else {}
        if part not in known:
            raise SSLKitError(f"unknown key {key!r}.{did_you_mean(part, known)}")
        hint, doc = known[part].hint, known[part].doc
    return hint, doc


def kind_at(key: str) -> Kind:
    """Return the kind of component that stands under a recipe key.

    Raises:
        SSLKitError: no component stands there.
    """
    hint, _ = find_key(key)
    kind = kind_in(hint) or kind_in(item_hint(hint))
    if kind is None:
        raise SSLKitError(f"{key} is {phrase(hint)}, not a component")
    return kind
