"""Kinds of components, and how a person calls them."""

import inspect

from sslkit import hookspecs
from sslkit.hookspecs import KINDS
from sslkit.registry import contract


def test_every_kind_has_a_hook_that_offers_nothing_and_names_its_contract():
    for kind in KINDS:
        hook = getattr(hookspecs, kind.hook)
        assert [*hook()] == []
        assert contract(kind).__name__ in inspect.getdoc(hook)


def test_kinds_are_called_in_kebab_case_and_each_differently():
    commands = [kind.command for kind in KINDS]
    assert "collapse-operators" in commands
    assert not any("_" in command for command in commands)
    for names in (commands, [kind.singular for kind in KINDS], [kind.contract for kind in KINDS]):
        assert len(set(names)) == len(KINDS)
