import math

import pytest
import torch
from steps import Correlation, Regression, Rotate, adamw, relative_difference, values
from torch.nn import functional as F

from sslkit.clock import Clock
from sslkit.collapse import Centering
from sslkit.contracts import TeacherUpdate
from sslkit.errors import RecipeError, UnknownName
from sslkit.losses import CrossEntropy
from sslkit.method.executor import Executor
from sslkit.method.gradients import Clip
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.optimizers.parameter_groups import set_rates
from sslkit.schedules import Cosine, Warmup
from sslkit.teachers import EMA, PreviousEpoch, PreviousStep

STEPS, EPOCH, CLIP = 4, 2, 0.3


TEMPERATURES = [0.04, 0.04, 0.07, 0.07]


# Batch norm takes away what these add, so their gradient is rounding noise, which Adam turns into steps.
WITHOUT_EFFECT = {"backbone.linear.bias", "head.projector.0.bias"}


def half_cosine(start, end, step):
    return end + (start - end) * (1 + math.cos(math.pi * step / STEPS)) / 2


def with_effect(named):
    return {name: value for name, value in named.items() if name not in WITHOUT_EFFECT}


def slow_answer(p, views):
    """Logits (V, B, K) of a network whose parameters are the entries of ``p``, and the projector's hidden rows."""
    features = []
    for group in views.groups:
        for images in group.images:
            maps = F.gelu(F.conv2d(images, p["backbone.conv.weight"], p["backbone.conv.bias"]))
            features.append(maps.mean((2, 3)) @ p["backbone.linear.weight"].T + p["backbone.linear.bias"])
    hidden = torch.cat(features) @ p["head.projector.0.weight"].T + p["head.projector.0.bias"]
    spread = hidden.var(0, unbiased=False) + 1e-5
    normed = (hidden - hidden.mean(0)) / spread.sqrt() * p["head.projector.1.weight"] + p["head.projector.1.bias"]
    z = F.gelu(normed) @ p["head.projector.3.weight"].T + p["head.projector.3.bias"]
    z = z / z.square().sum(1, keepdim=True).sqrt()
    return (z @ p["head.prototypes.weight"].T).view(len(views.view_ids), views.batch_size, -1), hidden.detach()


def slow_cross_entropy(teacher_logits, student_logits, center, temperature):
    terms = []
    for t in range(2):
        for s in range(len(student_logits)):
            if s != t:
                for b in range(student_logits.shape[1]):
                    q = torch.softmax((teacher_logits[t, b] - center) / temperature, 0)
                    terms.append(-(q * torch.log_softmax(student_logits[s, b] / 0.1, 0)).sum())
    return torch.stack(terms).mean()


def slow_adamw(p, gradient, moments, lr, weight_decay):
    first, second, count = moments
    count += 1
    first = 0.9 * first + 0.1 * gradient
    second = 0.999 * second + 0.001 * gradient * gradient
    p = p - lr * weight_decay * p
    p = p - lr * (first / (1 - 0.9**count)) / ((second / (1 - 0.999**count)).sqrt() + 1e-8)
    return p, (first, second, count)


def slow_dino(student, teacher, batches):
    """Return student, teacher and center after the batches, their losses, and which gradients were clipped."""
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p), 0) for name, p in student.items()}
    center = torch.zeros(11, dtype=torch.float64)
    losses, clipped = [], []
    for step, views in enumerate(batches):
        lr, weight_decay = half_cosine(0.01, 1e-4, step), half_cosine(0.04, 0.4, step)
        momentum = half_cosine(0.9, 1.0, step)
        student = {name: p.detach().requires_grad_() for name, p in student.items()}
        student_logits, _ = slow_answer(student, views)
        teacher_logits, _ = slow_answer(teacher, views.select((0, 1)))
        loss = slow_cross_entropy(teacher_logits, student_logits, center, TEMPERATURES[step])
        gradients = dict(zip(student, torch.autograd.grad(loss, list(student.values())), strict=True))
        for name, gradient in gradients.items():
            coefficient = CLIP / (gradient.square().sum().sqrt() + 1e-6)
            clipped.append(bool(coefficient < 1))
            if name == "head.prototypes.weight" and step < EPOCH:
                continue
            decay = 0.0 if student[name].ndim == 1 else weight_decay
            bounded = gradient * min(coefficient, 1.0)
            student[name], moments[name] = slow_adamw(student[name].detach(), bounded, moments[name], lr, decay)
        center = 0.9 * center + 0.1 * teacher_logits.flatten(0, 1).mean(0)
        teacher = {name: momentum * teacher[name] + (1 - momentum) * student[name].detach() for name in teacher}
        losses.append(loss.item())
    return {name: p.detach() for name, p in student.items()}, teacher, center, losses, clipped


def test_four_steps_of_dino_are_the_published_ones(tiny):
    student, other = tiny.branch(batch_norm=True), tiny.branch(batch_norm=True)
    model = StudentTeacher(
        student,
        teacher=other,
        teacher_update=EMA(Cosine(0.9, 1.0)),
        collapse=Centering(11, temperature=Warmup(0.04, 0.07, "2 epochs")),
        loss=CrossEntropy(0.1),
    )
    batches = [tiny.views(batch=5, num_local=3) for _ in range(STEPS)]
    expected = slow_dino(values(student), values(model.teacher), batches)
    optimizer, lr, weight_decay = adamw(model), Cosine(0.01, 1e-4), Cosine(0.04, 0.4)

    losses = []
    for step, views in enumerate(batches):
        clock = Clock(step, STEPS, EPOCH)
        set_rates(optimizer, lr(clock), weight_decay(clock))
        frozen = ("prototypes",) if clock.epoch < 1 else ()
        losses.append(train_step(model, views, optimizer, clock, clip=Clip(CLIP), frozen=frozen).loss.item())

    slow_student, slow_teacher, slow_center, slow_losses, clipped = expected
    assert relative_difference(with_effect(values(model.student)), with_effect(slow_student)) < 1e-11
    assert relative_difference(with_effect(values(model.teacher)), with_effect(slow_teacher)) < 1e-11
    assert relative_difference({"": model.collapse.center}, {"": slow_center}) < 1e-11
    assert losses == pytest.approx(slow_losses, rel=1e-11)
    assert {True, False} == set(clipped), "the bound must bind for some tensors and not for others"


class EverySecondStep(TeacherUpdate):
    def after_step(self, student, teacher, clock=None):
        if clock.step % 2:
            teacher.load_state_dict(student.state_dict())


def test_the_untouched_step_runs_parts_that_it_has_never_heard_of(tiny):
    model = StudentTeacher(
        tiny.branch(num_prototypes=None),
        teacher_update=EverySecondStep(),
        collapse=Rotate(),
        loss=Correlation(),
        student_views="globals",
        teacher_views=[1],
    )
    optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1)
    student, teacher = values(model.student), values(model.teacher)
    for step in range(4):
        views = tiny.views()
        leaves = {name: p.clone().requires_grad_() for name, p in student.items()}

        def embed(p, images, model=model):
            return torch.func.functional_call(model.student, p, (images,)).embedding

        target = embed(teacher, views.select((1,)))[0].detach().roll(step, -1)
        loss = -(embed(leaves, views.select((0,)))[0] * target).sum(-1).mean()
        gradients = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
        student = {n: p - 0.1 * g for (n, p), g in zip(student.items(), gradients, strict=True)}
        teacher = student if step % 2 else teacher

        output = train_step(model, views, optimizer, Clock(step, 4, 4))
        assert output.loss.item() == pytest.approx(loss.item(), rel=1e-12)
        assert relative_difference(values(model.student), student) < 1e-12
        assert relative_difference(values(model.teacher), teacher) < 1e-12
    assert model.collapse.turns == 4


def test_the_order_of_a_step(tiny):
    events = []

    class Head(tiny.Head):
        def before_step(self):
            assert not torch.is_grad_enabled()
            events.append("head")

    class Operator(Centering):
        def forward(self, teacher, clock):
            events.append(f"targets of {teacher.logits.shape[1]}")
            return super().forward(teacher, clock)

        def update(self, teacher, clock):
            events.append(f"update by {teacher.logits.shape[1]}")
            super().update(teacher, clock)

    class Rule(EMA):
        def before_step(self, student, teacher, clock):
            assert student.head.prototypes.weight.grad is None
            assert student.backbone.conv.weight.grad.norm() == pytest.approx(1e-3, rel=1e-2)
            events.append("before step")

        def after_step(self, student, teacher, clock):
            events.append("after step")

    class Watch(Executor):
        def student(self, student, views):
            events.append(f"student on {views.batch_size}")
            return super().student(student, views)

        def backward(self, loss):
            super().backward(loss)
            events.append("backward")

        def unscale(self, optimizer):
            events.append("unscale")

    class SGD(torch.optim.SGD):
        def step(self, closure=None):
            events.append("optimizer")
            super().step()

    student = tiny.branch()
    student.head = Head().double()
    model = StudentTeacher(student, teacher_update=Rule(), collapse=Operator(11), loss=CrossEntropy())
    model.teacher.backbone.register_forward_hook(lambda *_: events.append("teacher"))
    optimizer = SGD(student.parameters(), lr=0.1)
    options = {"clip": Clip(1e-3), "frozen": ["prototypes"], "accumulation": 2, "executor": Watch()}
    train_step(model, tiny.views(batch=5), optimizer, **options)
    assert events == [
        "head",
        "teacher",
        "targets of 5",
        "student on 2",
        "backward",
        "student on 3",
        "backward",
        "unscale",
        "before step",
        "optimizer",
        "update by 5",
        "after step",
    ]


@pytest.mark.parametrize("rule", [PreviousStep, PreviousEpoch])
def test_whom_the_teacher_of_each_step_is(tiny, rule):
    model = StudentTeacher(tiny.branch(), teacher_update=rule(), collapse=Centering(11), loss=CrossEntropy())
    optimizer = adamw(model)
    students, teachers = [], []
    for step in range(7):
        students.append(values(model.student))
        teachers.append(values(model.teacher))
        train_step(model, tiny.views(), optimizer, Clock(step, 7, steps_per_epoch=3))
    expected = {PreviousStep: [0, 0, 1, 2, 3, 4, 5], PreviousEpoch: [0, 0, 0, 3, 3, 3, 6]}[rule]
    for step, source in enumerate(expected):
        assert relative_difference(teachers[step], students[source]) == 0


def test_batch_norm_of_the_teacher_is_its_own(tiny):
    model = StudentTeacher(
        tiny.branch(batch_norm=True), teacher_update=EMA(0.5), collapse=Centering(11), loss=CrossEntropy()
    )
    optimizer, norms = adamw(model), []
    mean = torch.zeros(7, dtype=torch.float64)
    for step in range(3):
        views = tiny.views()
        _, hidden = slow_answer(values(model.teacher), views.select((0, 1)))
        mean = 0.9 * mean + 0.1 * hidden.mean(0)
        train_step(model, views, optimizer, Clock(step, 3, 3))
        norms = [branch.head.projector[1] for branch in (model.student, model.teacher)]
        assert [int(norm.num_batches_tracked) for norm in norms] == [step + 1, step + 1]
        assert norms[1].num_batches_tracked.dtype == torch.long
    torch.testing.assert_close(norms[1].running_mean, mean, rtol=1e-11, atol=1e-15)
    assert not torch.allclose(norms[0].running_mean, norms[1].running_mean)


@pytest.mark.parametrize("part", ["backbone", "projector", "prototypes"])
def test_a_frozen_part_neither_moves_nor_gathers_moments_nor_decays(tiny, part):
    model = StudentTeacher(tiny.branch(), teacher_update=EMA(), collapse=Centering(11), loss=CrossEntropy())
    optimizer, before = adamw(model), values(model.student)
    set_rates(optimizer, 0.1, 0.5)
    frozen = {id(parameter) for parameter in model.student.parts()[part].parameters()}
    for step in range(2):
        train_step(model, tiny.views(), optimizer, Clock(step, 2, 2), frozen=[part])
    for name, parameter in model.student.named_parameters():
        assert torch.equal(parameter, before[name]) == (id(parameter) in frozen)
        assert (parameter in optimizer.state) == (id(parameter) not in frozen)


def test_freezing_what_the_student_has_not_is_refused_with_the_choices(tiny):
    model = StudentTeacher(tiny.branch(), teacher_update=EMA(), collapse=Centering(11), loss=CrossEntropy())
    with pytest.raises(UnknownName, match=r"unknown part of the student 'prototype'\. Did you mean 'prototypes'"):
        train_step(model, tiny.views(), adamw(model), frozen=["prototype"])


def test_one_directional_and_symmetric_are_choices_of_views(tiny):
    views = tiny.views(num_local=0)
    for student_views, teacher_views in (([0], [1]), ("globals", "globals")):
        model = StudentTeacher(
            tiny.branch(num_prototypes=None),
            teacher_update=EMA(),
            collapse=None,
            loss=Regression(),
            student_views=student_views,
            teacher_views=teacher_views,
        )
        student, teacher = model.student(views).embedding, model.teacher(views).embedding
        forth = (student[0] - teacher[1]).square().sum(-1).mean()
        back = (student[1] - teacher[0]).square().sum(-1).mean()
        expected = forth if student_views == [0] else (forth + back) / 2
        assert train_step(model, views, adamw(model)).loss.item() == pytest.approx(expected.item(), rel=1e-12)


def test_no_pair_of_different_views_is_refused(tiny):
    model = StudentTeacher(
        tiny.branch(),
        teacher_update=EMA(),
        collapse=Centering(11),
        loss=CrossEntropy(),
        student_views=[0],
        teacher_views=[0],
    )
    with pytest.raises(RecipeError, match="no two different views"):
        train_step(model, tiny.views(), adamw(model))


def test_old_gradients_do_not_leak_into_a_step(tiny):
    model = StudentTeacher(tiny.branch(None), teacher_update=EMA(), collapse=None, loss=Regression())
    views = tiny.views()
    optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1)
    start = {name: value.clone() for name, value in model.state_dict().items()}
    train_step(model, views, optimizer)
    first = values(model.student)
    model.load_state_dict(start)
    for parameter in model.student.parameters():
        parameter.grad = torch.ones_like(parameter)
    train_step(model, views, optimizer)
    assert relative_difference(values(model.student), first) == 0


def test_the_output_is_without_gradient_and_in_batch_order(tiny):
    model = StudentTeacher(tiny.branch(), teacher_update=EMA(), collapse=Centering(11), loss=CrossEntropy())
    views = tiny.views(batch=5)
    expected = model.student(views)
    output = train_step(model, views, adamw(model), accumulation=2)
    assert output.student.view_ids == (0, 1, 2, 3, 4)
    assert output.teacher.view_ids == output.targets.view_ids == (0, 1)
    torch.testing.assert_close(output.student.logits, expected.logits.detach(), rtol=1e-12, atol=1e-15)
    tensors = (output.loss, output.student.logits, output.teacher.logits, output.targets.values)
    assert not any(tensor.requires_grad for tensor in tensors)
