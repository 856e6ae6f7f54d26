"""What a run derives from its recipe before it starts."""

from types import SimpleNamespace

import pytest
import torch

from sslkit.errors import RecipeError, UnreadableImage
from sslkit.recipe import load
from sslkit.training.intervals import Intervals
from sslkit.training.setup import intervals_of, preprocessing_of, range_note, size_note, start_clock, views_seen


def built(*overrides):
    images = ["--data.train.num_images", "40", "--data.test.num_images", "8"]
    return load("quickstart", [*images, "--optimization.batch_size", "8", *overrides]).build()


def test_the_clock_is_the_recipes_over_its_images():
    clock = start_clock(built("--optimization.epochs", "3"))
    assert (clock.step, clock.total_steps, clock.steps_per_epoch) == (0, 15, 5)


def test_more_images_in_a_batch_than_there_are_is_refused():
    with pytest.raises(
        RecipeError, match=r"optimization\.batch_size: 41 is more than the 40 images of .*textures"
    ) as found:
        start_clock(built("--optimization.batch_size", "41"))
    # What solves it, batch, learning rate and teacher momentum together.
    assert "sslkit explain RECIPE --data FOLDER --apply FILE.yaml" in str(found.value)


def test_the_views_of_a_run_are_counted_by_their_pixels():
    parts = built("--optimization.epochs", "3", "--views.num_local_views", "4", "--views.local_size", "16")
    assert views_seen(parts, start_clock(parts), 32) == 15 * 8 * (2 + 4 / 4)
    assert views_seen(parts, start_clock(parts), 64) == 15 * 8 * (2 + 4 / 4) / 4


def test_intervals_are_those_of_the_recipe():
    words = ["--runtime.log_every", "3", "--runtime.rank_every", "7", "--runtime.checkpoint_every", "2 epochs"]
    assert intervals_of(built(*words, "--evaluation.every", "5 steps")) == Intervals(3, 7, "2 epochs", "5 steps")


def test_evaluators_see_images_as_large_as_global_views_unless_the_recipe_has_other_sizes():
    found = preprocessing_of(built())
    assert (found.size, found.resize, found.channels, found.mean) == (32, 32, 3, [0.5] * 3)
    found = preprocessing_of(built("--evaluation.view_size", "24", "--evaluation.resize", "30"))
    assert (found.size, found.resize) == (24, 30)
    found = preprocessing_of(built("--evaluation.crop_pct", "0.875"))
    assert (found.size, found.resize) == (32, 37)


@pytest.mark.parametrize("name", ["dino-vit-small", "byol-resnet50", "moco-v2-resnet50", "swav-resnet50"])
@pytest.mark.parametrize(("size", "resize"), [(224, 256), (64, 73)])
def test_evaluations_of_shipped_recipes_follow_the_views(name, size, resize):
    """The papers resize to 256 and cut out 224; at other sizes of the views the proportion stays."""
    words = ["--views.global_size", str(size), "--data.train", "Textures", "--data.test", "null"]
    recipe = load(name, [*words, "--method.backbone", "{TimmBackbone: {name: test_vit, model_args: {}}}"])
    section, maker = (recipe.builder().build(key) for key in ("evaluation", "views"))
    data = SimpleNamespace(channels=3, mean=[0.5] * 3, std=[0.5] * 3, value_range=None)
    found = preprocessing_of(SimpleNamespace(evaluation=section, views=maker, data=data))
    assert (found.size, found.resize) == (size, resize)


def test_another_size_than_the_views_is_reported():
    assert size_note(built()) == size_note(built("--evaluation.view_size", "32")) == ""
    note = size_note(built("--evaluation.view_size", "24"))
    assert note.startswith("note: networks are evaluated and exported at 24 px (evaluation.view_size), but train on")


class Pixels:
    """Images of these values, the first of which cannot be read."""

    def __init__(self, dtype, *values):
        self.image = torch.tensor(values, dtype=torch.float32).reshape(1, 1, -1).to(dtype)

    def __len__(self):
        return 20

    def read(self, index):
        if not index:
            raise UnreadableImage("a", "broken")
        return SimpleNamespace(image=self.image)


@pytest.mark.parametrize("image", [None, [1, 2], torch.zeros(0), RuntimeError("broken")])
def test_a_source_that_gives_no_images_is_left_to_the_loader(image):
    def read(index):
        if isinstance(image, Exception):
            raise image
        return SimpleNamespace(image=image)

    source = Pixels(torch.uint8, 1)
    source.read = read
    assert range_note(SimpleNamespace(data=SimpleNamespace(train=source, value_range=None))) == ""


@pytest.mark.parametrize(
    ("dtype", "values", "said"),
    [
        (
            torch.uint16,
            (0, 4000),
            "from 0 to 4000, but 0 is read as black and 65535 as white; --data.value_range '[0, 4095]'",
        ),
        (torch.uint16, (900, 16383), "--data.value_range '[0, 16383]'"),
        (
            torch.float32,
            (0, 255),
            "from 0 to 255, but 0 is read as black and 1 as white; --data.value_range '[0, 255]'",
        ),
        (torch.float32, (-30, 3000), "--data.value_range '[-30, 3000]'"),
        (torch.uint16, (0, 60000), ""),
        (torch.uint16, (0, 0), ""),
        (torch.uint8, (0, 9), ""),
        (torch.float32, (0, 1), ""),
    ],
)
def test_values_far_from_the_range_that_they_are_read_as_point_to_the_key(dtype, values, said):
    data = SimpleNamespace(train=Pixels(dtype, *values), value_range=None)
    note = range_note(SimpleNamespace(data=data))
    assert (said in note, bool(note)) == (True, bool(said))
    data.value_range = [0, 1]
    assert range_note(SimpleNamespace(data=data)) == ""
