"""Arguments of a class and of its parents."""

import gc
import weakref

import pytest

from sslkit.errors import ComponentError
from sslkit.recipe.signature import parameters, takes_anything


def test_arguments_are_followed_to_the_parents():
    class Parent:
        """A.

        Args:
            a: the first.
        """

        def __init__(self, a: int, b: str = "b") -> None: ...

    class Child(Parent):
        def __init__(self, c: float = 1.0, **others: object) -> None: ...

    class Open:
        def __init__(self, **anything: object) -> None: ...

    assert [(p.name, p.hint) for p in parameters(Child).values()] == [("c", float), ("a", int), ("b", str)]
    assert parameters(Child)["a"].doc == "the first."
    assert not takes_anything(Child)
    assert takes_anything(Open)


def test_a_type_hint_that_cannot_be_read_is_told_with_its_class():
    class Mine:
        def __init__(self, number: "a b" = 1) -> None:  # noqa: F722
            pass

    with pytest.raises(ComponentError, match=r"Mine: a type hint of __init__ cannot be read: Forward reference"):
        parameters(Mine)


def test_the_classes_of_a_plugin_file_do_not_outlive_its_use():
    class Passing:
        def __init__(self, a: int = 1) -> None:
            pass

    assert list(parameters(Passing)) == ["a"]
    assert parameters(Passing) is parameters(Passing)
    known = weakref.ref(Passing)
    del Passing
    gc.collect()
    assert known() is None
