"""Types in words."""

from sslkit.recipe.type_hints import phrase
from sslkit.schedules import Schedule


def test_types_in_words():
    assert phrase(float | Schedule | None) == "a number or a schedule or null"
    assert phrase(list[int]) == "a list, each a whole number"
    assert phrase(tuple[float, ...]) == "a list, each a number"
