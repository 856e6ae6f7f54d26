"""Micro-batches change nothing, and a teacher that is the student shares its forward."""

import pytest
import torch
from steps import Correlation, Regression, Rotate, adamw, relative_difference, values
from torch import nn
from torch.nn import functional as F

from sslkit.clock import Clock
from sslkit.collapse import BatchSoftmax, Centering, SinkhornKnopp
from sslkit.contracts import Predictor
from sslkit.errors import RecipeError
from sslkit.losses import CrossEntropy
from sslkit.method.gradients import Clip
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.teachers import EMA, Copy, PreviousEpoch, PreviousStep


class LinearPredictor(Predictor):
    def __init__(self, dim=6):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, projection):
        return self.linear(projection)


class InBatchContrast(Regression):
    couples_batch = True


OPERATORS = {
    "centering": lambda: (Centering(11), CrossEntropy()),
    "argmax": lambda: (Centering(11, temperature=0), CrossEntropy()),
    "sinkhorn": lambda: (SinkhornKnopp(), CrossEntropy()),
    "batch softmax": lambda: (BatchSoftmax(), CrossEntropy()),
    "none": lambda: (None, Regression()),
    "of the test": lambda: (Rotate(), Correlation()),
}


def run(tiny, parts, rule, accumulation, predictor=False, batch=7, steps=3):
    torch.manual_seed(1)
    operator, loss = parts()
    num_prototypes = 11 if operator is not None and operator.reads == "logits" else None
    student = tiny.branch(num_prototypes, predictor=LinearPredictor() if predictor else None)
    model = StudentTeacher(student, teacher_update=rule, collapse=operator, loss=loss)
    optimizer = adamw(model)
    outputs = []
    for step in range(steps):
        views = tiny.views(batch=batch, num_local=1)
        outputs.append(
            train_step(model, views, optimizer, Clock(step, steps, 2), clip=Clip(0.1), accumulation=accumulation)
        )
    return model, outputs


@pytest.mark.parametrize("accumulation", [3, 7])
@pytest.mark.parametrize("name", OPERATORS)
def test_accumulation_changes_nothing_for_any_operator(tiny, name, accumulation):
    once, whole = run(tiny, OPERATORS[name], EMA(0.5), 1)
    again, parts = run(tiny, OPERATORS[name], EMA(0.5), accumulation)
    assert relative_difference(values(again.student), values(once.student)) < 1e-12
    assert relative_difference(values(again.teacher), values(once.teacher)) < 1e-12
    if state := (once.collapse and once.collapse.state_dict()):
        for key, value in again.collapse.state_dict().items():
            torch.testing.assert_close(value, state[key], rtol=1e-12, atol=1e-15)
    for mine, theirs in zip(parts, whole, strict=True):
        torch.testing.assert_close(mine.loss, theirs.loss, rtol=1e-12, atol=0)
        torch.testing.assert_close(mine.student.embedding, theirs.student.embedding, rtol=1e-11, atol=1e-14)
        torch.testing.assert_close(mine.targets.values, theirs.targets.values, rtol=1e-9, atol=1e-14)


@pytest.mark.parametrize("predictor", [False, True])
@pytest.mark.parametrize("rule", [EMA, PreviousStep, PreviousEpoch, Copy])
def test_accumulation_changes_nothing_for_any_rule(tiny, rule, predictor):
    once, _ = run(tiny, OPERATORS["centering"], rule(), 1, predictor)
    again, _ = run(tiny, OPERATORS["centering"], rule(), 3, predictor)
    assert relative_difference(values(again.student), values(once.student)) < 1e-12
    assert relative_difference(values(again.teacher), values(once.teacher)) < 1e-12


@pytest.mark.parametrize("accumulation", [0, -1, 8])
def test_micro_batches_without_images_are_refused(tiny, accumulation):
    with pytest.raises(RecipeError, match=f"the 7 images of a process cannot be cut into {accumulation} micro-batches"):
        run(tiny, OPERATORS["none"], EMA(), accumulation)


def test_a_loss_that_couples_images_refuses_accumulation(tiny):
    model = StudentTeacher(tiny.branch(None), teacher_update=EMA(), collapse=None, loss=InBatchContrast())
    before = values(model.student)
    with pytest.raises(RecipeError, match="InBatchContrast compares the images of a batch"):
        train_step(model, tiny.views(), adamw(model), accumulation=2)
    assert relative_difference(values(model.student), before) == 0
    train_step(model, tiny.views(), adamw(model), accumulation=1)


def copying(tiny, predictor=False, **slots):
    student = tiny.branch(predictor=LinearPredictor() if predictor else None, drop=0.3)
    return StudentTeacher(student, teacher_update=Copy(), collapse=Centering(11), loss=CrossEntropy(), **slots)


def test_copy_hands_on_the_students_own_outputs_and_runs_no_second_forward(tiny):
    model = copying(tiny)
    output = train_step(model, tiny.views(), adamw(model))
    assert model.student.backbone.forwards == 2  # one a resolution
    for name in ("features", "projection", "embedding", "logits"):
        # Dropout is on, so equality means that these are the student's outputs, not like them.
        assert torch.equal(getattr(output.teacher, name), getattr(output.student, name)[:2])


def test_copy_with_a_predictor_targets_what_comes_before_it(tiny):
    model = copying(tiny, predictor=True)
    prototypes = model.student.head.prototypes.weight.detach().clone()
    output = train_step(model, tiny.views(), adamw(model))
    assert model.student.backbone.forwards == 2
    embedding = F.normalize(output.student.projection[:2], dim=-1)
    torch.testing.assert_close(output.teacher.embedding, embedding, rtol=1e-13, atol=0)
    torch.testing.assert_close(output.teacher.logits, embedding @ prototypes.T, rtol=1e-12, atol=1e-15)
    assert not torch.equal(output.student.embedding[:2], output.teacher.embedding)


def test_copy_runs_a_second_forward_for_views_that_the_student_does_not_see(tiny):
    model = copying(tiny, student_views=[0], teacher_views=[1])
    output = train_step(model, tiny.views(num_local=0), adamw(model))
    assert model.student.backbone.forwards == 2
    assert (output.student.view_ids, output.teacher.view_ids) == ((0,), (1,))
    assert not output.teacher.logits.requires_grad


def test_copy_gives_no_gradient_to_the_targets(tiny):
    """As if the teacher were a second network with the same weights."""
    copy = StudentTeacher(tiny.branch(), teacher_update=Copy(), collapse=Centering(11), loss=CrossEntropy())
    second = StudentTeacher(
        tiny.branch(), teacher_update=PreviousStep(), collapse=Centering(11), loss=CrossEntropy(), teacher=copy.student
    )
    second.student.load_state_dict(copy.student.state_dict())
    views = tiny.views()
    train_step(copy, views, adamw(copy))
    train_step(second, views, adamw(second))
    assert relative_difference(values(copy.student), values(second.student)) < 1e-13
