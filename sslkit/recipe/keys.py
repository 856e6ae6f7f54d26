"""Type, documentation and kind of component of recipe keys."""

from typing import Any

from sslkit.errors import SSLKitError, did_you_mean
from sslkit.hookspecs import Kind
from sslkit.recipe.sections import BuiltRecipe
from sslkit.recipe.signature import parameters
from sslkit.recipe.type_hints import item_hint, kind_in, phrase, section_in


def find_key(key: str) -> tuple[Any, str]:
    """Return the type of a recipe key and its description in the docstring of its section.

    Args:
        key: dotted, such as ``method.loss``; empty for the whole recipe.

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
    """Return the kind of component that a recipe key takes.

    Args:
        key: dotted.

    Raises:
        SSLKitError: the key does not exist or does not take a component.
    """
    hint, _ = find_key(key)
    kind = kind_in(hint) or kind_in(item_hint(hint))
    if kind is None:
        raise SSLKitError(f"{key} is {phrase(hint)}, not a component")
    return kind
