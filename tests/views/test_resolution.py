"""The views of one resolution: crops of a picture or of canvases, a few at a time, then colours and normalisation."""

import numpy as np
import pytest
import torch

from sslkit.errors import RecipeError
from sslkit.views import MultiCrop
from sslkit.views.pixels import Normalize, to_unit
from sslkit.views.resolution import Resolution

PLAIN = {"brightness": 0, "contrast": 0, "saturation": 0, "hue": 0, "grayscale": 0}


@pytest.fixture
def resolution():
    def resolution(**arguments):
        maker = MultiCrop(num_local_views=0, global_size=12, mean=[0.5] * 3, std=[0.25] * 3, **arguments)
        return maker.resolutions[0]

    return resolution


def draws(batch, views, seed=0):
    return np.random.default_rng(seed).random((batch, views, 64))


def test_crops_of_a_batch_of_canvases_are_those_of_each(resolution):
    view = resolution()
    canvases = torch.rand(5, 3, 20, 24)
    uniform = draws(5, 2)
    crops = view.crop_canvases(canvases, view.plan(uniform, (20, 24), on_cpu=True))
    assert crops.shape == (2, 5, 3, 12, 12)
    for i in range(5):
        alone = view.crop_canvases(canvases[i : i + 1], view.plan(uniform[i : i + 1], (20, 24), on_cpu=True))
        torch.testing.assert_close(crops[:, i], alone[:, 0], rtol=0, atol=1e-6)


def test_a_crop_of_a_picture_is_near_that_of_a_canvas_of_its_size(resolution):
    view, uniform = resolution(), draws(1, 2, seed=3)
    picture = torch.linspace(0, 1, 40).expand(3, 32, 40).contiguous()
    mine = view.crop_picture(picture, uniform)
    other = view.crop_canvases(picture[None], view.plan(uniform, (32, 40), on_cpu=True))[:, 0]
    assert mine.shape == (2, 3, 12, 12)
    torch.testing.assert_close(mine, other, rtol=0, atol=0.02)


@pytest.mark.parametrize("at_a_time", [1, 12 * 12 * 3 * 2, 10**9])
def test_how_many_images_are_worked_on_at_a_time_changes_nothing(resolution, monkeypatch, at_a_time):
    view, crops = resolution(), (torch.rand(2, 7, 3, 12, 12) * 255).to(torch.uint8)
    plan = view.plan(draws(7, 2), None, on_cpu=True)
    normalize = Normalize(3, [0.5] * 3, [0.25] * 3)
    whole = view.finish(crops, plan, normalize, None)
    monkeypatch.setattr("sslkit.views.resolution.CACHED_VALUES", at_a_time)
    again = view.finish(crops, plan, normalize, None)
    assert whole.view_ids == (0, 1)
    torch.testing.assert_close(again.images, whole.images, rtol=0, atol=0)


def test_without_colours_a_view_is_the_normalised_crop(resolution):
    view = resolution(**PLAIN, global_blur=[0, 0], global_solarize=[0, 0])
    crops = (torch.rand(2, 3, 3, 12, 12) * 255).to(torch.uint8)
    group = view.finish(crops, view.plan(draws(3, 2), None, on_cpu=True), Normalize(3, [0.5] * 3, [0.25] * 3), None)
    torch.testing.assert_close(group.images, (to_unit(crops, None) - 0.5) / 0.25)
    assert group.images.dtype == torch.float32


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"size": 0}, "global_size"),
        ({"scale": (0.5, 0.4)}, "global_scale"),
        ({"flip": 1.5}, "flip"),
        ({"view_ids": (0, 1, 2)}, "global_blur"),
    ],
)
def test_nonsense_is_refused_by_the_name_of_the_argument(resolution, change, named):
    fields = {name: getattr(resolution(), name) for name in Resolution.__dataclass_fields__}
    with pytest.raises(RecipeError, match=named):
        Resolution(**{**fields, **change})
