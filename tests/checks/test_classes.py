"""Classes that extend a contract and do not fit it."""

import pytest

from sslkit.checks.classes import check_class, contract_methods, full_name
from sslkit.contracts import Backbone, Callback, CollapseOperator, ImageSource, Loss, TeacherUpdate
from sslkit.errors import ComponentError
from sslkit.losses import CrossEntropy


async def waits(self, run):
    return


def make(contract, **names):
    return type("Mine", (contract,), {**names, "__module__": __name__})


@pytest.mark.parametrize(
    ("contract", "names", "said"),
    [
        (Loss, {"forward": lambda self, student: 0}, "forward takes (student), but is called as forward(student, tar"),
        (Loss, {"forward": lambda self, s, t, clock: 0}, "forward takes (s, t, clock), but is called as forward(stud"),
        (CollapseOperator, {"forward": lambda self, teacher: 0}, "is called as forward(teacher, clock)"),
        (CollapseOperator, {"metrics": {"a": 1}}, "metrics must be a method, metrics(clock), not dict"),
        (TeacherUpdate, {"after_step": lambda self, student, teacher: 0}, "called as after_step(student, teacher, c"),
        (TeacherUpdate, {"after_steps": lambda self: 0}, "nothing reads 'after_steps'. Did you mean 'after_step'?"),
        (Loss, {"needs_negative": True}, "nothing reads 'needs_negative'. Did you mean 'needs_negatives'?"),
        (Callback, {"on_run_end": waits}, "on_run_end is async, but nothing awaits it; write def on_run_end(run)"),
        (Callback, {"on_epoch_end": lambda self, run: 0}, "a callback has no 'on_epoch_end', so nothing calls it."),
        (Callback, {"on_step_end": lambda self, run: 0}, "takes (run), but is called as on_step_end(run, metrics)"),
        (Backbone, {"load": classmethod(lambda cls: 0)}, "load takes (), but is called as load(folder)"),
        (Loss, {"__init__": eval("lambda self, t, /: None")}, "__init__ takes t by position alone"),
    ],
)
def test_a_class_that_does_not_fit_is_refused(contract, names, said):
    with pytest.raises(ComponentError) as refusal:
        check_class(make(contract, **names), contract, "Mine of a file")
    assert str(refusal.value).startswith("Mine of a file: ")
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    ("contract", "names"),
    [
        (Loss, {"forward": lambda self, *words: 0}),
        (Loss, {"forward": lambda self, a, b, more=1: 0}),
        (Backbone, {"forward": lambda self, images: 0}),
        (Backbone, {"forward": staticmethod(lambda images, mask: 0), "layer": lambda self: 0}),
        (ImageSource, {"read": lambda self, i: 0, "label": lambda self, i: 0}),
        (Callback, {"on_step_end": lambda self, trainer, row: 0, "draw": lambda self: 0}),
    ],
)
def test_other_classes_are_taken(contract, names):
    check_class(make(contract, **names), contract, "Mine")


def test_the_methods_of_a_contract_are_those_that_sslkit_calls():
    assert {*contract_methods(Loss)} == {"forward", "log_probabilities", "chance", "describe", "recommend"}


def test_a_name_leads_to_the_package():
    assert full_name(CrossEntropy) == "CrossEntropy"
    assert full_name(make(Loss)) == f"{__name__}.Mine"
