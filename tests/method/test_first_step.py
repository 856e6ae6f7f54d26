"""What the first step of a method shows of its parts."""

import logging

import pytest
import torch

from sslkit.collapse import Centering
from sslkit.contracts import CollapseOperator, TeacherUpdate
from sslkit.errors import ComponentError
from sslkit.losses import CrossEntropy
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.teachers import EMA
from sslkit.types import Features, Targets


class Softmax(CollapseOperator):
    def __init__(self):
        super().__init__()
        self.register_buffer("center", torch.zeros(11, dtype=torch.float64))

    def forward(self, teacher, clock=None):
        return Targets((teacher.logits - self.center).softmax(-1), "probabilities", teacher.view_ids)


class WritesInForward(Softmax):
    def forward(self, teacher, clock=None):
        self.center += 1
        return super().forward(teacher)


class ReplacesInForward(Softmax):
    def forward(self, teacher, clock=None):
        self.center = self.center + 1
        return super().forward(teacher)


class ChangesOutputs(Softmax):
    def forward(self, teacher, clock=None):
        teacher.logits.sub_(self.center)
        return super().forward(teacher)


class CountsSteps(Softmax):
    count = 0

    def update(self, teacher, clock=None):
        self.count += 1


class WritesBuffer(Softmax):
    def update(self, teacher, clock=None):
        self.center += 1


class Grows(Softmax):
    def update(self, teacher, clock=None):
        self.center = torch.zeros(12)


class KeepsWeights(TeacherUpdate):
    def __init__(self):
        self.old = []

    def after_step(self, student, teacher, clock=None):
        self.old.append(None)


class SharesHead(TeacherUpdate):
    def after_step(self, student, teacher, clock=None):
        teacher.head = student.head


class WithoutNoGrad(TeacherUpdate):
    def after_step(self, student, teacher, clock=None):
        for mine, other in zip(teacher.parameters(), student.parameters()):
            mine.mul_(0.9).add_(other, alpha=0.1)


@pytest.fixture
def take_steps(tiny):
    def take(collapse=None, teacher=None, steps=1):
        model = StudentTeacher(
            tiny.branch(), teacher_update=teacher or EMA(), collapse=collapse or Centering(11), loss=CrossEntropy()
        ).double()
        optimizer = torch.optim.SGD(model.student.parameters(), 0.1)
        for _ in range(steps):
            train_step(model, tiny.views(), optimizer)
        return model

    return take


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"collapse": WritesInForward()}, "collapse: .*WritesInForward: forward changes its state center; write"),
        ({"collapse": ReplacesInForward()}, "collapse: .*ReplacesInForward: forward changes its state center; write"),
        ({"collapse": ChangesOutputs()}, "collapse: .*ChangesOutputs: forward changes teacher.logits in place"),
        ({"collapse": Grows()}, "collapse: .*Grows: update changes the shape of center, which a checkpoint could not"),
        ({"teacher": SharesHead()}, "teacher: .*SharesHead puts parameters of the student into the teacher"),
    ],
)
def test_state_in_the_wrong_place_is_refused(take_steps, parts, said):
    with pytest.raises(ComponentError, match=rf"method\.{said}"):
        take_steps(**parts)


@pytest.mark.parametrize(
    ("parts", "said"),
    [
        ({"collapse": CountsSteps()}, "CountsSteps: a step changes count, which checkpoints do not save"),
        ({"teacher": KeepsWeights()}, "KeepsWeights: a step changes old, which checkpoints do not save"),
    ],
)
def test_state_that_no_checkpoint_holds_is_told_once(take_steps, parts, said, caplog):
    with caplog.at_level(logging.WARNING):
        take_steps(**parts, steps=3)
    assert [said in record.message for record in caplog.records] == [True]


def test_a_part_without_gradient_is_told_once(tiny, caplog):
    student = tiny.branch()
    forward = student.backbone.forward
    student.backbone.forward = lambda images: Features(forward(images).cls.detach())
    model = StudentTeacher(student, teacher_update=EMA(), collapse=Centering(11), loss=CrossEntropy()).double()
    for _ in range(2):
        train_step(model, tiny.views(), torch.optim.SGD(model.student.parameters(), 0.1))
    [message] = caplog.messages
    assert message.startswith("the backbone of the student")
    assert "gets no gradient, so it does not learn" in message


def test_buffers_written_in_update_are_right(take_steps, caplog):
    assert take_steps(collapse=WritesBuffer(), steps=2).collapse.center.eq(2).all()
    assert caplog.records == []


def test_a_teacher_update_needs_no_no_grad(take_steps):
    model = take_steps(teacher=WithoutNoGrad(), steps=2)
    assert not any(parameter.requires_grad for parameter in model.teacher.parameters())
