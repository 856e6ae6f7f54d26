"""What components refuse of one another."""

import pytest

from sslkit.errors import RecipeError
from sslkit.recipe.validation import check_memory


def test_sizes_that_the_patch_does_not_divide_are_refused(base):
    with pytest.raises(RecipeError, match=r"views\.size: 10 pixels are no multiple of .* patch of 4; take 8 or 12"):
        base("--views.size", "10").build()
    assert base("--views.size", "10", "--method.backbone.patch_size", "null").build().views.sizes[0] == 10


def test_other_channels_in_the_images_are_refused(base):
    with pytest.raises(RecipeError, match=r"data\.train\.channels is 1, but data\.channels is 3"):
        base("--data.train.channels", "1").build()


@pytest.mark.parametrize("key", ["views.size", "evaluation.view_size"])
def test_a_size_that_the_backbone_cannot_take_is_refused_with_one_that_it_takes(base, key, monkeypatch):
    monkeypatch.setattr("sslkit.backbones.trial.STEP", 4)
    recipe = base(f"--{key}", "10", "--views.num_local", "0", "--method.backbone", "{FixedBackbone: {size: 8}}")
    with pytest.raises(RecipeError, match=rf"{key}: FixedBackbone .* 10 px: takes 8 px alone. Add\n  --{key} 8"):
        recipe.build()


def test_views_that_fit_into_no_memory_are_refused_before_they_are_made(base, monkeypatch):
    monkeypatch.setattr("sslkit.recipe.validation.memory_size", lambda: 10**9)
    with pytest.raises(RecipeError, match=r"views\.size: 4 views of up to 99999996 px of 1 image take 74,999,994 GB"):
        base("--views.size", "99999996").build()
    with pytest.raises(RecipeError, match=r"evaluation\.view_size: 1 view of up to 99999996 px of 1 image take"):
        base("--evaluation.view_size", "99999996").build()
    check_memory([8, 8, 4, 4], 3, 10**6)
    with pytest.raises(RecipeError, match=r"optimization\.batch_size: .* of 10000000 images .*; take fewer images"):
        check_memory([8, 8, 4, 4], 3, 10**7)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["--optimization.batch_size", "1", "--method.separate_views", "true"], r"optimization\.batch_size: .*single"),
        (
            ["--method.head.fails", "true"],
            r"method\.head: NormHead fails on 32 rows of 6 .*: as it was told",
        ),
    ],
)
def test_a_head_that_cannot_take_a_micro_batch_is_refused(base, overrides, said):
    recipe = base("--method.head", "NormHead", *overrides)
    with pytest.raises(RecipeError, match=said):
        recipe.build()
