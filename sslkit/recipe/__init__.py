"""Recipes, the YAML files that describe runs."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslkit.recipe.loading import Recipe as Recipe
    from sslkit.recipe.loading import load as load

_PLACES = {"Recipe": "loading", "load": "loading"}
__all__ = list(_PLACES)


def __getattr__(name: str) -> Any:
    # On first use, since loading imports torch, and modules such as `recipe.files` serve commands that do not need it.
    if name not in _PLACES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_PLACES[name]}"), name)
