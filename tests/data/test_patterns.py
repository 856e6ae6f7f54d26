"""Patterns repeat, stay in 0 .. 1, and differ from one another."""

import pytest
import torch

from sslkit.data.patterns import PATTERNS, blobs, checker, dots, rings, stripes, zigzag

PERIODS = torch.full((1, 1, 1), 0.02)
PERIODIC = [pattern for pattern in PATTERNS if pattern not in (rings, blobs, zigzag)]


def plane(low=0.0, high=2.0, steps=100):
    line = torch.linspace(low, high, steps + 1, dtype=torch.float64)[:-1]
    y, x = torch.meshgrid(line, line, indexing="ij")
    return x[None], y[None]


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.__name__)
def test_covered_shares_lie_in_0_to_1_and_take_both_ends(pattern):
    covered = pattern(*plane(), PERIODS)
    assert covered.shape == (1, 100, 100)
    assert covered.min() == 0
    assert covered.max() == 1


@pytest.mark.parametrize("pattern", PERIODIC, ids=lambda pattern: pattern.__name__)
def test_patterns_repeat(pattern):
    x, y = plane()
    for dx, dy in ((4, 0), (0, 4), (8, 4)):
        torch.testing.assert_close(pattern(x + dx, y + dy, PERIODS), pattern(x, y, PERIODS), rtol=0, atol=1e-9)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.__name__)
def test_edges_are_as_soft_as_a_pixel(pattern):
    x, y = plane()
    # A pixel ten times as large leaves more of them partly covered.
    sharp, soft = (pattern(x, y, torch.full((1, 1, 1), size)) for size in (1e-6, 0.1))
    partly = [((share > 0) & (share < 1)).double().mean().item() for share in (sharp, soft)]
    assert partly[0] < partly[1] / 2


def test_no_two_are_alike():
    made = [pattern(*plane(), PERIODS) for pattern in PATTERNS]
    for i, one in enumerate(made):
        for other in made[:i]:
            assert (one - other).abs().mean() > 0.1


def test_by_hand():
    point = lambda value: torch.full((1, 1, 1), value)  # noqa: E731
    assert stripes(point(0.0), point(0.3), PERIODS) == 1
    assert stripes(point(0.5), point(0.3), PERIODS) == 0
    assert stripes(point(0.25), point(0.3), PERIODS) == 0.5
    assert checker(point(0.5), point(0.5), PERIODS) == checker(point(0.0), point(0.0), PERIODS) == 1
    assert checker(point(0.5), point(0.0), PERIODS) == 0
    assert dots(point(3.0), point(2.0), PERIODS) == 1
    assert dots(point(3.5), point(2.0), PERIODS) == 0
