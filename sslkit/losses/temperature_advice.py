"""Recommendations on the temperature of a loss."""

from collections.abc import Iterator

from sslkit.recommendation import ANY_FAILURE, Recommendation

HIGHEST = 1.0
"""The highest temperature of a student with which learning was published (SimCLR table 5, arXiv:2002.05709)."""


def recommend_temperature(temperature: float, usual: float, source: str) -> Iterator[Recommendation]:
    """Yield the published temperature where one is so high that scores hardly matter.

    Args:
        temperature: that scores are divided by.
        usual: the published one.
        source: where it was published.
    """
    if temperature > HIGHEST:
        yield Recommendation(
            f"divided by a temperature of {temperature:g}, scores hardly differ; published ones are 0.07 to 1",
            source,
            {"temperature": usual},
            leads_to=ANY_FAILURE,
        )
