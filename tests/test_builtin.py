"""What ships is offered once, by a path that exists, as a component of its kind."""

import pytest

from sslkit import builtin
from sslkit.hookspecs import KINDS
from sslkit.registry import contract, import_class


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.hook)
def test_every_offer_is_a_concrete_class_of_its_kind(kind):
    offers = list(getattr(builtin, kind.hook)())
    assert offers
    assert len(offers) == len(set(offers))
    for path in offers:
        found = import_class(path)
        assert issubclass(found, contract(kind))
        assert not getattr(found, "__abstractmethods__", None)
        assert found.__doc__
