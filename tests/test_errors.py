import pickle

import pytest

from sslkit.errors import DataError, RecipeError, SSLKitError, UnknownName, UnreadableImage, did_you_mean


def test_an_unknown_name_is_named_with_the_likely_intention_and_the_choices():
    error = UnknownName("collapse operator", "Centring", ["SinkhornKnopp", "Centering"], where="method.collapse")
    assert str(error) == (
        "method.collapse: unknown collapse operator 'Centring'. Did you mean 'Centering'? "
        "Choices: Centering, SinkhornKnopp."
    )


@pytest.mark.parametrize(("name", "guess"), [("ema", "EMA"), ("sinkhorn", "SinkhornKnopp"), ("qqqq", None)])
def test_did_you_mean(name, guess):
    text = did_you_mean(name, ["EMA", "SinkhornKnopp", "Copy"])
    assert text.endswith(" Choices: Copy, EMA, SinkhornKnopp.")
    assert (f"Did you mean {guess!r}?" in text) if guess else ("Did you mean" not in text)


def test_nothing_to_choose_from():
    assert did_you_mean("x", []) == " Choices: none."


def test_every_error_is_the_users_to_mend():
    for kind in (RecipeError, UnknownName, DataError, UnreadableImage):
        assert issubclass(kind, SSLKitError)


def test_an_unreadable_image_comes_back_from_a_worker_whole():
    error = pickle.loads(pickle.dumps(UnreadableImage("a/b.jpg", "truncated")))
    assert (error.name, error.reason, str(error)) == ("a/b.jpg", "truncated", "a/b.jpg: truncated")
