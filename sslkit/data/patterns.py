"""Draw eight patterns from coordinates, with soft edges.

A pattern is a function of the coordinates x and y (N, H, W), in periods of the pattern, and of ``periods`` (N, 1, 1),
the side of a pixel in periods. It returns the share of each pixel that is covered, (N, H, W) in 0 .. 1.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

Pattern = Callable[[Tensor, Tensor, Tensor], Tensor]


def stripes(x: Tensor, y: Tensor, periods: Tensor) -> Tensor:
    """Parallel bands."""
    return _soft(_to_middle(x) - 0.25, periods)


def checker(x: Tensor, y: Tensor, periods: Tensor) -> Tensor:
    """Squares of two tones in turn."""
    a, b = _soft(_to_middle(x) - 0.25, periods), _soft(_to_middle(y) - 0.25, periods)
    return a * b + (1 - a) * (1 - b)


def dots(x: Tensor, y: Tensor, periods: Tensor) -> Tensor:
    """Discs on a square lattice."""
    return _soft(0.31 - torch.hypot(x - x.round(), y - y.round()), periods)


def bricks(x: Tensor, y: Tensor, periods: Tensor) -> Tensor:
    """Rows of bricks, every other row shifted by half a brick."""
    row = y.floor()
    along = x / 2 + row / 2
    return _soft(torch.minimum(2 * _to_edge(along), _to_edge(y)) - 0.1, periods)


def zigzag(x: Tensor, y: Tensor, periods: Tensor) -> Tensor:
    """Parallel zigzag bands."""
    return _soft((_to_middle(y + 3 * _to_middle(x / 3)) - 0.25) / 1.41, periods)


def grid(x: Tensor, y: Tensor, periods: Tensor) -> Tensor:
    """Thin lines that cross."""
    return _soft(0.12 - torch.minimum(_to_edge(x), _to_edge(y)), periods)


def blobs(x: Tensor, y: Tensor, periods: Tensor) -> Tensor:
    """Irregular spots: the sum of waves in seven directions, cut at its middle."""
    total = torch.zeros_like(x)
    for k in range(7):
        angle, frequency = 2.4 * k, 0.6 + 0.08 * (3 * k % 7)
        # Phases depend on the period: otherwise all pictures would show the same spots at different scales.
        phase = 97 * (k + 1) ** 2 * periods
        along = x * math.cos(angle) + y * math.sin(angle)
        total += torch.cos(2 * math.pi * (frequency * along + phase))
    return _soft(total / 10, periods)


def rings(x: Tensor, y: Tensor, periods: Tensor) -> Tensor:
    """Circles around one point."""
    return _soft(_to_middle(torch.hypot(x, y)) - 0.33, periods)


PATTERNS: tuple[Pattern, ...] = (stripes, checker, dots, bricks, zigzag, grid, blobs, rings)


def _to_edge(x: Tensor) -> Tensor:
    """Return the distance to the nearest whole number, 0 .. 0.5."""
    return (x - x.round()).abs()


def _to_middle(x: Tensor) -> Tensor:
    """Return the distance to the nearest half, 0 .. 0.5."""
    return 0.5 - _to_edge(x)


def _soft(inside: Tensor, periods: Tensor) -> Tensor:
    """Return the covered share of pixels whose centres are this many periods inside an edge, outside if negative."""
    return (0.5 + inside / periods).clamp(0, 1)
