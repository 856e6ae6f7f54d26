"""Recipes: a run in one YAML file. Imports nothing heavy until a recipe is loaded."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sslkit.recipe.loading import Recipe as Recipe
    from sslkit.recipe.loading import load as load

__all__ = ["Recipe", "load"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from sslkit.recipe import loading

    return getattr(loading, name)
