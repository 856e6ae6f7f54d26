import math

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import RandomResizedCrop

from sslkit.views.boxes import draw_boxes
from sslkit.views.draws import Stream, uniforms


def slow_box(draws, height, width, scale):
    for attempt in range(10):
        area = height * width * (scale[0] + (scale[1] - scale[0]) * draws[Stream.CROP_AREA + attempt])
        low, high = math.log(3 / 4), math.log(4 / 3)
        ratio = math.exp(low + (high - low) * draws[Stream.CROP_RATIO + attempt])
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            top = int(draws[Stream.CROP_TOP] * (height - tall + 1))
            left = int(draws[Stream.CROP_LEFT] * (width - wide + 1))
            return [top, left, tall, wide]
    if width / height < 3 / 4:
        wide, tall = width, round(width / (3 / 4))
    elif width / height > 4 / 3:
        wide, tall = round(height * 4 / 3), height
    else:
        wide, tall = width, height
    return [(height - tall) // 2, (width - wide) // 2, tall, wide]


@pytest.mark.parametrize("scale", [(0.4, 1.0), (0.05, 0.4), (1.0, 1.0), (0.01, 0.02)])
def test_equals_the_loop_over_attempts(scale):
    rng = np.random.default_rng(0)
    heights, widths = rng.integers(1, 600, 200), rng.integers(1, 600, 200)
    heights[:20], widths[:20] = 7, 300
    draws = uniforms(0, 0, np.arange(200), range(3))
    boxes = draw_boxes(draws, heights, widths, scale)
    for b in range(200):
        for v in range(3):
            assert boxes[b, v].tolist() == slow_box(draws[b, v], int(heights[b]), int(widths[b]), scale)


@pytest.mark.parametrize("size", [(10, 1000), (1000, 10), (375, 500), (1, 1), (33, 33), (3, 5)])
def test_fallback_is_torchvisions(size):
    # Twice the picture's area never fits, here and there.
    boxes = draw_boxes(uniforms(0, 0, [1], [0]), *np.array(size)[:, None], (2.0, 2.0))
    theirs = RandomResizedCrop(8, scale=(2.0, 2.0)).make_params([torch.zeros(3, *size)])
    assert boxes[0, 0].tolist() == [theirs[name] for name in ("top", "left", "height", "width")]


def test_distribution_is_torchvisions():
    torch.manual_seed(0)
    transform, picture = RandomResizedCrop(8, scale=(0.05, 1.0)), torch.zeros(1, 120, 200)
    theirs = [
        [p[n] for n in ("top", "left", "height", "width")]
        for p in (transform.make_params([picture]) for _ in range(3000))
    ]
    sizes = np.full(3000, 120), np.full(3000, 200)
    ours = draw_boxes(uniforms(0, 0, np.arange(3000), [0]), *sizes, (0.05, 1.0))[:, 0]
    for column in range(4):
        grid = np.quantile(theirs, [0.1, 0.25, 0.5, 0.75, 0.9], axis=0)[:, column]
        shares = [[(np.array(boxes)[:, column] <= edge).mean() for edge in grid] for boxes in (theirs, ours)]
        assert np.abs(np.subtract(*shares)).max() < 0.045


def test_boxes_lie_inside():
    sizes = np.array([1, 2, 5, 40, 333]), np.array([7, 2, 3, 500, 333])
    boxes = draw_boxes(uniforms(1, 2, range(5), range(500)), *sizes, (0.05, 1.0))
    top, left, tall, wide = np.moveaxis(boxes, -1, 0)
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (tall >= 1).all()
    assert (wide >= 1).all()
    assert (top + tall <= sizes[0][:, None]).all()
    assert (left + wide <= sizes[1][:, None]).all()
