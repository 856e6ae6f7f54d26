"""An exception in a component's code is told by class, method, file and line."""

import sys

import pytest
from torch import nn

from sslkit.checks.failures import exits_as_errors, failure_in
from sslkit.contracts import Backbone, Callback
from sslkit.errors import RunError


class Failing(Callback):
    def on_run_start(self, run):
        inner(run)

    def on_run_end(self, run):
        sys.exit(0)


def inner(run):
    raise KeyError(run)


def raised(work):
    try:
        work()
    except BaseException as error:
        return error


def test_the_line_in_the_component_is_named():
    failure = failure_in(raised(lambda: Failing().on_run_start("x")))
    line = Failing.on_run_start.__code__.co_firstlineno + 1
    assert isinstance(failure, RunError)
    place = f"{__name__}.Failing.on_run_start (test_failures.py:{line})"
    assert str(failure) == f"{place} raised KeyError: 'x' (SSLKIT_DEBUG=1 shows all)"


def test_the_line_is_that_of_the_component_and_not_of_what_it_calls():
    class Wrong(Backbone):
        embed_dim = 3

        def __init__(self):
            super().__init__()
            self.layers = nn.Linear(3, 3)

        def forward(self, images, mask=None):
            return None

        @classmethod
        def load(cls, folder):
            raise ValueError(folder)

    assert "Wrong.__init__ (test_failures.py:" in str(failure_in(raised(Wrong)))
    assert "Wrong.load (test_failures.py:" in str(failure_in(raised(lambda: Wrong.load("x"))))


def test_an_exception_elsewhere_is_nobodys():
    assert failure_in(raised(lambda: inner("x"))) is None


def test_an_exit_is_an_error_whatever_its_code():
    said = r"Failing\.on_run_end .* called sys\.exit\(0\), which ended the program early"
    with pytest.raises(RunError, match=said), exits_as_errors():
        Failing().on_run_end(None)
    with pytest.raises(RunError, match=r"something called sys\.exit\(\)"), exits_as_errors():
        sys.exit()
