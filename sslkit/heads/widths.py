"""Validation of layer widths, for heads and predictors."""

from sslkit.errors import RecipeError


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
