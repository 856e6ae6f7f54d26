"""What a run derives from its recipe before it starts."""

import pytest

from sslkit.errors import RecipeError
from sslkit.recipe import load
from sslkit.training.intervals import Intervals
from sslkit.training.setup import intervals_of, preprocessing_of, start_clock


def built(*overrides):
    images = ["--data.train.num_images", "40", "--data.test.num_images", "8"]
    return load("quickstart", [*images, "--optimization.batch_size", "8", *overrides]).build()


def test_the_clock_is_the_recipes_over_its_images():
    clock = start_clock(built("--optimization.epochs", "3"))
    assert (clock.step, clock.total_steps, clock.steps_per_epoch) == (0, 15, 5)


def test_more_images_in_a_batch_than_there_are_is_refused():
    with pytest.raises(RecipeError, match=r"optimization\.batch_size: 41 is more than the 40 images of .*textures"):
        start_clock(built("--optimization.batch_size", "41"))


def test_intervals_are_those_of_the_recipe():
    words = ["--runtime.log_every", "3", "--runtime.rank_every", "7", "--runtime.checkpoint_every", "2 epochs"]
    assert intervals_of(built(*words, "--evaluation.every", "5 steps")) == Intervals(3, 7, "2 epochs", "5 steps")


def test_evaluators_see_images_as_large_as_global_views_unless_the_recipe_has_other_sizes():
    found = preprocessing_of(built())
    assert (found.size, found.resize, found.channels, found.mean) == (32, 32, 3, [0.5] * 3)
    found = preprocessing_of(built("--evaluation.view_size", "24", "--evaluation.resize", "30"))
    assert (found.size, found.resize) == (24, 30)
