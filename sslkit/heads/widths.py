"""Validation of layer widths, for heads and predictors."""

from collections.abc import Iterator

from sslkit.errors import RecipeError
from sslkit.recommendation import Recommendation

USUAL = 64
"""Units of a layer in the smallest built-in recipes."""


def check_widths(owner: str, **widths: int | None) -> None:
    """Raise an error if a width is not a whole number of at least 1; None is accepted.

    Args:
        owner: the class, for the message.
        **widths: by the name of the argument.

    Raises:
        RecipeError: a width is below 1; the message names the argument.
    """
    for name, width in widths.items():
        if width is not None and width < 1:
            raise RecipeError(f"{owner}: {name} is at least 1, not {width}")


def recommend_widths(**widths: int) -> Iterator[Recommendation]:
    """Yield a larger width for a layer of a single unit, through which all that the head says has to pass.

    Args:
        **widths: by the name of the argument.
    """
    for name, width in widths.items():
        if width == 1:
            yield Recommendation(
                f"a layer of {name} 1 leaves embeddings one direction to vary along",
                changes={name: USUAL},
                leads_to=("one-dimension collapse", "constant embeddings", "dimensional collapse", "not learning"),
            )
