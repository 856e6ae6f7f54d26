"""A temperature that makes scores alike is told; published ones are not."""

import pytest
from advice import run

from sslkit import CrossEntropy, InfoNCE


@pytest.mark.parametrize(("loss", "usual"), [(CrossEntropy(10.0), 0.1), (InfoNCE(1.5), 0.2)])
def test_a_high_temperature_is_told_with_the_published_one(loss, usual):
    (only,) = loss.recommend(run())
    assert only.reason.startswith(f"divided by a temperature of {loss.temperature:g}, scores hardly differ")
    assert dict(only.changes) == {"temperature": usual}
    assert "not learning" in only.leads_to


@pytest.mark.parametrize("loss", [CrossEntropy(), CrossEntropy(1.0), InfoNCE(), InfoNCE(0.07)])
def test_published_ones_are_not(loss):
    assert list(loss.recommend(run())) == []
