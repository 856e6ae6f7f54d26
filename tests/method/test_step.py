import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslkit.clock import Clock
from sslkit.collapse import BatchSoftmax, Centering, SinkhornKnopp
from sslkit.contracts import CollapseOperator, Loss, Predictor, TeacherUpdate
from sslkit.errors import RecipeError, UnknownName
from sslkit.losses import CrossEntropy
from sslkit.method.executor import Executor
from sslkit.method.gradients import Clip
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.optimizers.adamw import AdamW
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates
from sslkit.schedules import Cosine, Warmup
from sslkit.teachers import EMA, Copy, PreviousEpoch, PreviousStep
from sslkit.types import Targets, matching_pairs


def adamw(model):
    return AdamW().build(parameter_groups(model.student))


def values(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def relative_difference(ours, theirs):
    """Norm of the difference over the norm, over all tensors of two dicts together."""
    assert ours.keys() == theirs.keys()
    difference = sum((ours[name] - theirs[name]).square().sum() for name in ours)
    return math.sqrt(difference / sum(theirs[name].square().sum() for name in theirs))


class LinearPredictor(Predictor):
    def __init__(self, dim=6):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, projection):
        return self.linear(projection)


class Regression(Loss):
    """Squared distance of embeddings, over pairs of different views."""

    accepts = frozenset({"embedding"})

    def forward(self, student, targets):
        pairs = matching_pairs(targets.view_ids, student.view_ids)
        return sum((student.embedding[s] - targets.values[t]).square().sum(-1).mean() for t, s in pairs) / len(pairs)


class InBatchContrast(Regression):
    couples_batch = True


# The published DINO step, written out: 4 steps in 2 epochs, the last layer frozen for the first, one test.

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


# A method that nobody offers.


class Rotate(CollapseOperator):
    """Targets are the teacher's embeddings, turned by as many places as there were steps; counts them."""

    reads = "embedding"
    yields = "embedding"

    def __init__(self):
        super().__init__()
        self.register_buffer("turns", torch.zeros((), dtype=torch.long))

    def forward(self, teacher, clock=None):
        return Targets(teacher.embedding.roll(int(self.turns), -1), "embedding", teacher.view_ids)

    def update(self, teacher, clock=None):
        self.turns += 1


class Correlation(Loss):
    accepts = frozenset({"embedding"})

    def forward(self, student, targets):
        pairs = matching_pairs(targets.view_ids, student.view_ids)
        return -sum((student.embedding[s] * targets.values[t]).sum(-1).mean() for t, s in pairs) / len(pairs)


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


# Accumulation changes nothing.

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


# Copy.


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


# When the teacher is whom.


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


# Frozen parts, views, the log.


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


# Clipping.


def gradients(*norms):
    parameters = [nn.Parameter(torch.zeros(3, 2, dtype=torch.float64)) for _ in norms]
    for parameter, norm in zip(parameters, norms, strict=True):
        direction = torch.randn(3, 2, dtype=torch.float64)
        parameter.grad = direction / direction.norm() * norm
    return parameters


def test_clip_bounds_each_tensor_by_itself():
    parameters = gradients(0.5, 3.0, 12.0)
    before = [parameter.grad.clone() for parameter in parameters]
    Clip(3.0)([*parameters, nn.Parameter(torch.zeros(2))])
    for parameter, old, norm in zip(parameters, before, (0.5, 3.0, 12.0), strict=True):
        coefficient = min(1.0, 3.0 / (norm + 1e-6))
        torch.testing.assert_close(parameter.grad, old * coefficient, rtol=1e-13, atol=0)


def test_clip_bounds_all_together_as_torch_does():
    parameters = gradients(3.0, 4.0)
    twins = [nn.Parameter(torch.zeros_like(parameter)) for parameter in parameters]
    for twin, parameter in zip(twins, parameters, strict=True):
        twin.grad = parameter.grad.clone()
    Clip(2.0, per="all")(parameters)
    nn.utils.clip_grad_norm_(twins, 2.0)
    for twin, parameter in zip(twins, parameters, strict=True):
        torch.testing.assert_close(parameter.grad, twin.grad, rtol=1e-13, atol=0)
    assert math.hypot(*(float(parameter.grad.norm()) for parameter in parameters)) == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("norm", [-1, 0, float("nan")])
def test_a_bound_that_is_no_norm_is_refused(norm):
    with pytest.raises(RecipeError, match=f"norm of Clip is above 0, not {norm}"):
        Clip(norm)


def test_another_way_to_clip_is_refused():
    with pytest.raises(UnknownName, match=r"unknown per of Clip 'global'\. Choices: all, parameter"):
        Clip(1.0, per="global")


def test_clip_without_gradients_does_nothing():
    parameter = nn.Parameter(torch.zeros(2))
    Clip(1.0)([parameter])
    assert parameter.grad is None
