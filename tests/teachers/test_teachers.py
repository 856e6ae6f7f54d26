import pytest
import torch
from torch import nn

from sslkit.clock import Clock
from sslkit.errors import RecipeError
from sslkit.schedules import Cosine
from sslkit.teachers import EMA, Copy, PreviousEpoch, PreviousStep
from sslkit.teachers.matched_parameters import matched_parameters


def network(dtype=torch.float64):
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).to(dtype)


def values(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def differ(module, others):
    return [name for name, parameter in module.named_parameters() if not torch.equal(parameter, others[name])]


def move(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_ema_is_the_slow_average_with_a_schedule_per_step(dtype, tolerance):
    student, teacher = network(dtype), network(dtype)
    schedule = Cosine(0.9, 1.0)
    rule = EMA(schedule)
    expected = {name: value.double() for name, value in values(teacher).items()}
    for step in range(6):
        clock = Clock(step, 6, steps_per_epoch=3)
        move(student)
        momentum = schedule(clock)
        for name, parameter in student.named_parameters():
            expected[name] = momentum * expected[name] + (1 - momentum) * parameter.detach().double()
        rule.before_step(student, teacher, clock)
        rule.after_step(student, teacher, clock)
        assert rule.metrics(clock) == {"teacher_momentum": momentum}
    for name, parameter in teacher.named_parameters():
        assert parameter.dtype == dtype
        assert (parameter.double() - expected[name]).norm() <= tolerance * expected[name].norm()


def test_ema_by_hand():
    student, teacher = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(student.weight, 2.0)
    nn.init.constant_(teacher.weight, 10.0)
    EMA(0.75).after_step(student, teacher)
    assert teacher.weight.item() == 8.0
    assert student.weight.item() == 2.0


@pytest.mark.parametrize(("momentum", "stays"), [(1.0, "teacher"), (0.0, "student")])
def test_ema_at_its_ends(momentum, stays):
    student, teacher = network(), network()
    expected = values({"teacher": teacher, "student": student}[stays])
    EMA(momentum).after_step(student, teacher)
    assert not differ(teacher, expected)


@pytest.mark.parametrize(
    ("momentum", "said"),
    [
        (-0.1, "momentum of EMA .* not -0.1"),
        (float("nan"), "momentum of EMA .* not nan"),
        (Cosine(2, 1), "momentum.start of EMA .* not 2"),
        (Cosine(0.9, 1.01), "momentum.end of EMA .* not 1.01"),
        (Cosine(0.9, 1, "1 epochs", -1), "momentum.warmup_from of EMA .* not -1"),
    ],
)
def test_a_momentum_that_leaves_its_range_is_refused(momentum, said):
    with pytest.raises(RecipeError, match=said):
        EMA(momentum)
    EMA(Cosine(0.9, 1, warmup_from=-1))  # without a warm-up it is not reached


@pytest.mark.parametrize("rule", [EMA(0.5), PreviousEpoch(), PreviousStep(), Copy()])
def test_only_parameters_move(rule):
    student, teacher = network(), network()
    student(torch.randn(4, 3, dtype=torch.float64))
    teacher(torch.randn(4, 3, dtype=torch.float64))
    teacher(torch.randn(4, 3, dtype=torch.float64))
    buffers = {name: buffer.clone() for name, buffer in teacher.named_buffers()}
    rule.before_step(student, teacher, Clock())
    rule.after_step(student, teacher, Clock())
    for name, buffer in teacher.named_buffers():
        assert buffer.dtype == buffers[name].dtype
        assert torch.equal(buffer, buffers[name])
    assert teacher[1].num_batches_tracked == 2


def test_previous_step_is_the_student_before_the_optimizer_moves_it():
    student, teacher, rule = network(), network(), PreviousStep()
    for step in range(3):
        before = values(student)
        rule.before_step(student, teacher, Clock(step, 3, 2))
        move(student)
        rule.after_step(student, teacher, Clock(step, 3, 2))
        assert not differ(teacher, before)
        assert differ(teacher, values(student))


def test_previous_epoch_holds_the_teacher_within_an_epoch():
    student, teacher, rule = network(), network(), PreviousEpoch()
    start = values(teacher)
    for step in range(7):
        clock = Clock(step, 7, steps_per_epoch=3)
        rule.before_step(student, teacher, clock)
        move(student)
        rule.after_step(student, teacher, clock)
        if clock.is_epoch_end:
            start = values(student)
        assert not differ(teacher, start)
    assert differ(teacher, values(student))


def test_copy_shares_weights_and_the_others_do_not():
    assert Copy.shares_weights
    assert not any(rule.shares_weights for rule in (EMA, PreviousEpoch, PreviousStep))


def test_pairs_are_namesakes_and_the_student_may_have_more():
    student, teacher = network(), network()
    student.add_module("predictor", nn.Linear(2, 2))
    teachers, students = matched_parameters(student, teacher)
    assert len(teachers) == len(students) == 6
    for mine, (name, parameter) in zip(students, teacher.named_parameters(), strict=True):
        assert mine is student.get_parameter(name)
        assert mine.shape == parameter.shape


def test_a_teacher_parameter_without_a_namesake_is_named():
    student, teacher = network(), network()
    teacher.add_module("extra", nn.Linear(2, 2))
    with pytest.raises(ValueError, match=r"extra\.weight, extra\.bias"):
        EMA().after_step(student, teacher)
