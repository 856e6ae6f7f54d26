"""What components refuse of one another."""

import pytest

from sslkit.errors import RecipeError


def test_sizes_that_the_patch_does_not_divide_are_refused(base):
    with pytest.raises(RecipeError, match=r"views\.size: 10 pixels are no multiple of .* patch of 4; take 8 or 12"):
        base("--views.size", "10").build()
    assert base("--views.size", "10", "--method.backbone.patch_size", "null").build().views.sizes[0] == 10


def test_other_channels_in_the_images_are_refused(base):
    with pytest.raises(RecipeError, match=r"data\.train\.channels is 1, but data\.channels is 3"):
        base("--data.train.channels", "1").build()
