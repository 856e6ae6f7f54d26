"""Check the widths of heads."""

from sslkit.errors import RecipeError


def check_widths(owner: str, **widths: int | None) -> None:
    """Refuse layers of less than one unit; None is let through.

    Raises:
        RecipeError: naming the argument.
    """
    for name, width in widths.items():
        if width is not None and width < 1:
            raise RecipeError(f"{owner}: {name} is at least 1, not {width}")
