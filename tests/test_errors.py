import pickle

import pytest

from sslkit.errors import (
    DataError,
    NoSuchSplit,
    RecipeError,
    SSLKitError,
    UnknownName,
    UnreadableImage,
    did_you_mean,
    install_command,
    reason_of,
    some,
)


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


@pytest.mark.parametrize(("found", "command"), [(object(), "pip install a b"), (None, "uv pip install a b")])
def test_packages_are_installed_by_what_the_environment_has(found, command, monkeypatch):
    monkeypatch.setattr("sslkit.errors.find_spec", lambda name: found)
    assert install_command("a", "b") == command


def test_nothing_to_choose_from():
    assert did_you_mean("x", []) == " Choices: none."


def test_every_error_is_the_users_to_mend():
    for kind in (RecipeError, UnknownName, DataError, NoSuchSplit, UnreadableImage):
        assert issubclass(kind, SSLKitError)


@pytest.mark.parametrize(
    "error",
    [
        DataError("no images"),
        UnreadableImage("a/b.jpg", "truncated"),
        UnknownName("loss", "mes", ["MSE"], where="method.loss"),
        NoSuchSplit("photos", "test", ["train"]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_errors_come_back_from_a_worker_whole(error):
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (RecipeError("two\nlines"), "two\nlines"),
        (RuntimeError("first\nsecond"), "first"),
        (AttributeError("no such thing"), "AttributeError: no such thing"),
        (KeyError(), "KeyError"),
    ],
)
def test_an_error_of_a_library_is_one_line(error, said):
    assert reason_of(error) == said


def test_an_error_without_a_message_is_the_line_that_failed():
    def check(holds):
        if not holds:
            raise AssertionError

    with pytest.raises(AssertionError) as failed:
        check(1 > 2)
    assert reason_of(failed.value) == "check(1 > 2)"


def test_long_lists_are_cut():
    assert some(["a", "b"]) == "a, b"
    assert some([*"abcdef"]) == "a, b, c, d and 2 more"
