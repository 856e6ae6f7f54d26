"""What one component of a recipe tells another."""

import pytest

from sslkit.errors import RecipeError
from sslkit.recipe.links import LINKS
from sslkit.recipe.sections import BuiltRecipe
from sslkit.recipe.signature import parameters


def test_channels_reach_every_part(base):
    five = ["--data.channels", "5", "--data.mean", "[0, 0, 0, 0, 0]", "--data.std", "[1, 1, 1, 1, 1]"]
    parts = base(*five, "--method.predictor", "TinyPredictor").build()
    assert parts.method.backbone.in_chans == parts.views.channels == parts.data.train.channels == 5
    assert len(parts.views.mean) == 5
    assert parts.method.predictor.linear.in_features == parts.method.head.embed_dim


def test_a_link_that_disagrees_is_refused_and_one_that_agrees_is_not(base):
    with pytest.raises(RecipeError, match=r"method\.head\.in_dim is 7, but method\.backbone\.embed_dim is 6"):
        base("--method.head.in_dim", "7").build()
    assert base("--method.head.in_dim", "6").build().method.head.projector.in_features == 6


def test_a_link_from_nothing_is_refused(base):
    with pytest.raises(RecipeError, match=r"^method\.collapse: TinyOperator needs a head with prototypes"):
        base("--method.head.num_prototypes", "null").build()


def test_links_are_between_keys_that_exist():
    sections = {name: p.hint for name, p in parameters(BuiltRecipe).items()}
    for link in LINKS:
        for key in link:
            section, *rest = key.split(".")
            assert section in sections
            if len(rest) == 2:
                assert rest[0] in parameters(sections[section])
