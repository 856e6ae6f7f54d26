import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional

from sslkit.errors import RecipeError
from sslkit.views.appearance import Appearance, ColorJitter, apply_, select
from sslkit.views.blur import blur_
from sslkit.views.color import brightness_, contrast_, grayscale_, hue_, saturation_, solarize_
from sslkit.views.draws import Stream, uniforms

THEIRS = {
    brightness_: functional.adjust_brightness,
    contrast_: functional.adjust_contrast,
    saturation_: functional.adjust_saturation,
    hue_: functional.adjust_hue,
    grayscale_: lambda image, _: functional.rgb_to_grayscale(image, 3),
    blur_: lambda image, sigma: functional.gaussian_blur(image, [2 * int(np.ceil(3 * sigma)) + 1] * 2, [sigma] * 2),
    solarize_: lambda image, _: functional.solarize(image, 0.5),
}


def appearance(views=2, **changes):
    jitter = {
        "brightness": 0.4,
        "contrast": 0.4,
        "saturation": 0.2,
        "hue": 0.1,
        "probability": 0.8,
        "grayscale": 0.2,
    }
    jitter |= {name: value for name, value in changes.items() if name in jitter}
    rest = {"blur": [1.0, 0.1][:views], "blur_sigma": (0.1, 2.0), "solarize": [0.0, 0.2][:views]}
    rest |= {name: value for name, value in changes.items() if name in rest}
    return Appearance(ColorJitter(changes.get("channels", 3), **jitter), **rest)


def test_a_batch_equals_torchvision_image_by_image():
    draws = uniforms(0, 0, range(20), [0, 1])
    images = torch.rand(40, 3, 16, 16)
    changes = appearance().draw(draws)
    expected = images.clone()
    for operation, chosen, amounts in changes:
        for n in np.flatnonzero(chosen):
            expected[n] = THEIRS[operation](expected[n], float(amounts[n]))
    assert {change.operation for change in changes} == set(THEIRS)
    assert (apply_(images, select(changes, 0, len(images))) - expected).abs().max() < 1e-5


def test_each_jittered_image_has_the_four_operations_once_in_its_own_order():
    draws = uniforms(0, 0, range(3000), [0])
    changes = appearance(views=1, grayscale=0.0, blur=[0.0], solarize=[0.0]).draw(draws)
    orders = [tuple(c.operation.__name__ for c in changes if c.chosen[n]) for n in range(3000)]
    jittered = [order for order in orders if order]
    assert len(jittered) / 3000 == pytest.approx(0.8, abs=0.03)
    assert all(sorted(order) == ["brightness_", "contrast_", "hue_", "saturation_"] for order in jittered)
    counts = {order: jittered.count(order) for order in set(jittered)}
    assert len(counts) == 24
    assert 60 < min(counts.values()) < max(counts.values()) < 145


def test_amounts_are_uniform_in_their_ranges():
    draws = uniforms(0, 0, range(4000), [0])
    ranges = {
        brightness_: (0.2, 1.8),
        contrast_: (0.0, 2.5),
        saturation_: (0.9, 1.1),
        hue_: (-0.3, 0.3),
        blur_: (0.5, 3),
    }
    look = appearance(1, brightness=0.8, contrast=1.5, saturation=0.1, hue=0.3, blur_sigma=(0.5, 3.0))
    for operation, (low, high) in ranges.items():
        amounts = next(change.amounts for change in look.draw(draws) if change.operation is operation)
        assert low <= amounts.min() < low + 0.01 * (high - low)
        assert high - 0.01 * (high - low) < amounts.max() <= high
        assert amounts.mean() == pytest.approx((low + high) / 2, abs=0.03 * (high - low))


def test_probabilities_belong_to_their_views():
    draws = uniforms(0, 0, range(2000), [0, 1])
    chosen = {change.operation: change.chosen.reshape(2, 2000) for change in appearance().draw(draws)}
    assert chosen[blur_].mean(1).tolist() == pytest.approx([1.0, 0.1], abs=0.03)
    assert chosen[solarize_].mean(1).tolist() == pytest.approx([0.0, 0.2], abs=0.03)
    assert chosen[grayscale_].mean(1).tolist() == pytest.approx([0.2, 0.2], abs=0.03)


def test_leaving_an_operation_out_changes_no_other_draw():
    draws = uniforms(0, 0, range(50), [0, 1])
    both = [
        [(c.operation, c.chosen.tolist(), c.amounts.tolist()) for c in look.draw(draws) if c.operation is not hue_]
        for look in (appearance(), appearance(hue=0.0))
    ]
    assert both[0] == both[1]


def test_nothing_asked_is_nothing_done():
    look = appearance(probability=0.0, grayscale=0.0, blur=[0.0, 0.0], solarize=[0.0, 0.0])
    assert look.draw(uniforms(0, 0, range(50), [0, 1])) == []


def test_parts_of_a_batch_equal_the_whole():
    draws = uniforms(0, 0, range(9), [0, 1])
    images, changes = torch.rand(18, 3, 11, 11), appearance().draw(draws)
    whole = apply_(images.clone(), select(changes, 0, len(images)))
    ends = [(start, min(start + 5, len(images))) for start in range(0, len(images), 5)]
    parts = [apply_(images[start:stop].clone(), select(changes, start, stop)) for start, stop in ends]
    assert torch.equal(torch.cat(parts), whole)


def test_operations_on_colours_need_rgb():
    jitter = ColorJitter(13, 0.4, 0.4, None, None, 0.8, None)
    assert jitter.dropped == ("saturation", "hue", "grayscale")
    done = {c.operation for c in jitter.draw(uniforms(0, 0, range(100), [0, 1])) if c.chosen.any()}
    assert done == {brightness_, contrast_}
    assert ColorJitter(3, 0.4, 0.4, None, None, 0.8, None).dropped == ()
    for place, name in enumerate(["saturation", "hue", "grayscale"]):
        asked = [0.0, 0.0, 0.0]
        assert ColorJitter(1, 0.4, 0.4, asked[0], asked[1], 0.8, asked[2]).dropped == ()
        asked[place] = 0.1
        with pytest.raises(RecipeError, match=rf"{name}.*1 channels"):
            ColorJitter(1, 0.4, 0.4, asked[0], asked[1], 0.8, asked[2])


def test_streams_of_colour_are_read():
    # A change of one draw changes what it is for, and nothing else.
    draws = uniforms(0, 0, range(1), [0])
    moved = draws.copy()
    moved[..., Stream.BLUR_SIGMA] = 0.5
    before, after = (appearance(views=1, probability=1.0).draw(d) for d in (draws, moved))
    different = [a.operation for a, b in zip(before, after) if not np.array_equal(a.amounts, b.amounts)]
    assert different == [blur_]
