"""What stands under a key: its type, its documentation, the kind of component."""

import pytest

from sslkit.errors import SSLKitError
from sslkit.recipe.keys import find_key, kind_at
from sslkit.recipe.sections import BuiltRecipe, Method


@pytest.mark.parametrize(
    ("key", "hint"),
    [("", BuiltRecipe), ("method", Method), ("seed", int), ("optimization.batch_size", int), ("runtime.compile", bool)],
)
def test_a_key_has_a_type(key, hint):
    assert find_key(key)[0] is hint


def test_what_the_section_says_of_it():
    assert find_key("optimization.epochs")[1].startswith("passes over the images")
    assert find_key("method.init_from.heads")[1].startswith("whether projector, prototypes")


@pytest.mark.parametrize(
    ("key", "kind"),
    [
        ("method.collapse", "collapse_operators"),
        ("method.predictor", "predictors"),
        ("data.test", "image_sources"),
        ("evaluation.evaluators", "evaluators"),
        ("optimization.lr", "schedules"),
    ],
)
def test_a_component_has_a_kind_alone_in_a_list_or_beside_others(key, kind):
    assert kind_at(key).hook == kind


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("metod", "unknown key 'metod'. Did you mean 'method'?"),
        ("method.techer", "Did you mean 'teacher'?"),
        ("seed.x", "unknown key 'seed.x'"),
        ("method.teacher.momentum", "unknown key 'method.teacher.momentum'"),
    ],
)
def test_an_unknown_key_is_named(key, message):
    with pytest.raises(SSLKitError) as raised:
        find_key(key)
    assert message in str(raised.value)


def test_what_is_no_component_has_no_kind():
    with pytest.raises(SSLKitError, match="method is a section, not a component"):
        kind_at("method")
