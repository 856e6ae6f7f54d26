"""The teacher is the running average of the student."""

import pytest
import torch
from networks import differ, move, network, values
from torch import nn

from sslkit.clock import Clock
from sslkit.errors import RecipeError
from sslkit.schedules import Cosine
from sslkit.teachers import EMA, Copy, PreviousEpoch, PreviousStep


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
