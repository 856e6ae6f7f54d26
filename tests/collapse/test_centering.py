import math

import pytest
import torch

from sslkit.clock import Clock
from sslkit.collapse import Centering
from sslkit.schedules import Warmup
from sslkit.types import Projection


def teacher(logits, ids=(0, 1)):
    return Projection(logits, logits, logits, logits, ids)


def slow_targets(logits, center, temperature):
    """Image by image, prototype by prototype."""
    rows = []
    for view in logits.tolist():
        for image in view:
            scores = [(x - c) / temperature for x, c in zip(image, center, strict=True)]
            weights = [math.exp(score - max(scores)) for score in scores]
            rows.append([weight / sum(weights) for weight in weights])
    return torch.tensor(rows, dtype=torch.float64).view(logits.shape)


def slow_center(center, logits, momentum):
    images = [image for view in logits.tolist() for image in view]
    means = [sum(image[k] for image in images) / len(images) for k in range(len(center))]
    return [momentum * c + (1 - momentum) * mean for c, mean in zip(center, means, strict=True)]


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 3, 2), (2, 1, 13), (4, 2, 1)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_targets_and_center_over_several_steps(shape, dtype, tolerance):
    operator = Centering(shape[2], momentum=0.8, temperature=0.07)
    center = [0.0] * shape[2]
    for _ in range(4):
        logits = torch.randn(shape, dtype=dtype) / 10
        answers = teacher(logits, tuple(range(shape[0])))
        targets = operator(answers)
        expected = slow_targets(logits.double(), center, 0.07)
        assert targets.kind == operator.yields == "probabilities"
        assert targets.view_ids == answers.view_ids
        assert targets.values.dtype == dtype
        assert (targets.values.double() - expected).norm() <= tolerance * expected.norm()
        operator.update(answers)
        center = slow_center(center, logits.double(), 0.8)
    error = (operator.center.double() - torch.tensor(center, dtype=torch.float64)).norm()
    assert error <= tolerance * torch.tensor(center, dtype=torch.float64).norm()


def test_by_hand():
    operator = Centering(2, momentum=0.75, temperature=0.5)
    answers = teacher(torch.tensor([[[math.log(3), 0.0]], [[0.0, math.log(3)]]], dtype=torch.float64))
    # The center starts at 0: exp(2 log 3) = 9 against 1.
    expected = torch.tensor([[[0.9, 0.1]], [[0.1, 0.9]]], dtype=torch.float64)
    torch.testing.assert_close(operator(answers).values, expected, rtol=1e-14, atol=0)
    operator.update(answers)
    torch.testing.assert_close(operator.center, torch.full((2,), math.log(3) / 8, dtype=torch.float64))


def test_forward_is_pure_and_reads_the_center_of_the_steps_before():
    operator, answers = Centering(3), teacher(torch.randn(2, 4, 3))
    first, again = operator(answers).values, operator(answers).values
    assert torch.equal(first, again)
    assert torch.equal(operator.center, torch.zeros(3))
    operator.update(answers)
    assert not torch.equal(operator(answers).values, first)


def test_argmax_and_no_softmax():
    logits = torch.tensor([[[1.0, 3.0, 2.0], [5.0, 4.0, 0.0]]])
    one_hot = Centering(3, temperature=0)
    assert one_hot(teacher(logits, (0,))).values.tolist() == [[[0, 1, 0], [1, 0, 0]]]
    one_hot.center.copy_(torch.tensor([0.0, 3.0, 0.0]))
    assert one_hot(teacher(logits, (0,))).values.tolist() == [[[0, 0, 1], [1, 0, 0]]]
    assert one_hot(teacher(logits, (0,))).values.dtype == logits.dtype
    plain = Centering(3, temperature=None)
    plain.center.copy_(torch.tensor([0.5, 0.0, -1.0]))
    assert plain(teacher(logits, (0,))).values.tolist() == [[[0.5, 3.0, 3.0], [4.5, 4.0, 1.0]]]
    assert plain(teacher(logits, (0,))).kind == plain.yields == "logits"


def test_temperature_follows_a_schedule():
    operator = Centering(4, temperature=Warmup(0.04, 0.08, "3 epochs"))
    logits = torch.randn(2, 3, 4, dtype=torch.float64)
    for step, temperature in enumerate([0.04, 0.04, 0.06, 0.06, 0.08, 0.08, 0.08]):
        clock = Clock(step, 7, steps_per_epoch=2)
        expected = slow_targets(logits, [0.0] * 4, temperature)
        torch.testing.assert_close(operator(teacher(logits), clock).values, expected, rtol=1e-11, atol=1e-16)
        assert operator.metrics(clock)["teacher_temperature"] == pytest.approx(temperature)


def test_no_center_without_momentum_and_the_last_batch_with_none():
    logits = torch.randn(2, 3, 4)
    never, always = Centering(4, momentum=1), Centering(4, momentum=0)
    never.update(teacher(logits))
    always.update(teacher(logits))
    assert torch.equal(never.center, torch.zeros(4))
    torch.testing.assert_close(always.center, logits.mean((0, 1)))


def test_half_precision_is_computed_in_float32():
    logits = torch.randn(2, 3, 4).bfloat16()
    operator = Centering(4)
    assert operator(teacher(logits)).values.dtype == torch.float32
    operator.update(teacher(logits))
    assert operator.center.dtype == torch.float32
    torch.testing.assert_close(operator.center, 0.1 * logits.float().mean((0, 1)))


def test_the_center_is_saved_and_loaded():
    operator, answers = Centering(4), teacher(torch.randn(2, 3, 4))
    operator.update(answers)
    other = Centering(4)
    other.load_state_dict(operator.state_dict())
    assert torch.equal(other(answers).values, operator(answers).values)


def test_metrics():
    operator = Centering(2, temperature=None)
    operator.center.copy_(torch.tensor([3.0, 4.0]))
    assert set(operator.metrics(Clock())) == {"center_norm"}
    assert float(operator.metrics(Clock())["center_norm"]) == 5.0


@pytest.mark.parametrize("momentum", [-0.1, 1.1])
def test_a_momentum_out_of_range_is_refused(momentum):
    with pytest.raises(ValueError, match=r"momentum of Centering lies in \[0, 1\]"):
        Centering(3, momentum=momentum)


def test_a_negative_temperature_is_refused():
    with pytest.raises(ValueError, match=r"temperature of Centering lies in \[0, inf\), not -1"):
        Centering(3, temperature=-1)
    with pytest.raises(ValueError, match=r"temperature\.start of Centering lies in \[0, inf\), not -0.04"):
        Centering(3, temperature=Warmup(-0.04, 0.07, "3 epochs"))
