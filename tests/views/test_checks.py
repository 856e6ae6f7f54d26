"""Refusals name the argument and what it may be; bounds themselves are fine."""

import pytest
import torch

from sslkit.errors import DataError, RecipeError
from sslkit.views import checks


@pytest.mark.parametrize(
    ("check", "arguments"),
    [
        (checks.check_probability, [0]),
        (checks.check_probability, [1]),
        (checks.check_probabilities, [[0.5, 1], 2]),
        (checks.check_interval, [[0.1, 0.1], 0, 1]),
        (checks.check_interval, [[0.1, 1], 0, 1]),
        (checks.check_at_least, [3, 3]),
        (checks.check_at_least, [3, 3, 3]),
    ],
)
def test_what_lies_in_its_range_passes(check, arguments):
    check("name", *arguments)


@pytest.mark.parametrize(
    ("check", "arguments", "message"),
    [
        (checks.check_probability, [1.01], "name is a probability, between 0 and 1, not 1.01"),
        (checks.check_probability, [float("nan")], "not nan"),
        (checks.check_probabilities, [[0.5], 2], "name needs one probability for each of its 2 views"),
        (checks.check_probabilities, [[0.5, -1], 2], "not -1"),
        (checks.check_interval, [[0, 1], 0, 1], "above 0 and at most 1"),
        (checks.check_interval, [[0.5, 0.4], 0, 1], "the smaller first"),
        (checks.check_interval, [[0.5], 0, 1], "name is two numbers"),
        (checks.check_interval, [[0.5, 1.1], 0, 1], "at most 1"),
        (checks.check_at_least, [2, 3], "name must be at least 3, not 2"),
        (checks.check_at_least, [5, 3, 4], "name must be between 3 and 4, not 5"),
        (checks.check_at_least, [float("nan"), 3], "not nan"),
    ],
)
def test_what_does_not_is_refused_by_name(check, arguments, message):
    with pytest.raises(RecipeError, match=message):
        check("name", *arguments)


def test_operations_on_colours_are_for_rgb():
    assert checks.for_rgb("hue", 0.2, 0.1, 3) == 0.2
    assert checks.for_rgb("hue", None, 0.1, 3) == 0.1
    assert checks.for_rgb("hue", None, 0.1, 5) == checks.for_rgb("hue", 0.0, 0.1, 5) == 0.0
    with pytest.raises(RecipeError, match=r"hue: 0\.2 works on red, green and blue; these images have 1 channels"):
        checks.for_rgb("hue", 0.2, 0.1, 1)


def test_white_is_above_black():
    assert checks.check_value_range(None) is None
    assert checks.check_value_range((-1.0, 3.0)) == (-1.0, 3.0)
    for pair in ((1.0, 1.0), (2.0, 1.0)):
        with pytest.raises(RecipeError, match="in this order"):
            checks.check_value_range(pair)


@pytest.mark.parametrize("shape", [(4, 4), (1, 3, 4, 4), (7, 9, 3)])
def test_what_is_no_image_is_refused_with_its_shape(shape):
    with pytest.raises(DataError, match=r"an image is \(C, H, W\)"):
        checks.check_channels(torch.zeros(shape), 3)


def test_other_channels_are_refused():
    checks.check_channels(torch.zeros(2, 5, 5), 2)
    checks.check_channels(torch.zeros(3, 3, 3), 3)
    with pytest.raises(DataError, match="has 2 channels, the views were built for 3"):
        checks.check_channels(torch.zeros(2, 5, 5), 3)
