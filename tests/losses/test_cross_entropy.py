import math

import pytest
import torch

from sslkit.losses import CrossEntropy
from sslkit.types import Projection, Targets


def student(logits, ids):
    return Projection(logits, logits, logits, logits, tuple(ids))


def slow_loss(probabilities, teacher_ids, logits, student_ids, temperature):
    """Every pair of different views, every image, every prototype."""
    terms = []
    for t, teacher_id in enumerate(teacher_ids):
        for s, student_id in enumerate(student_ids):
            if teacher_id == student_id:
                continue
            for b in range(logits.shape[1]):
                scores = logits[s, b] / temperature
                log_total = torch.log(torch.exp(scores - scores.max()).sum()) + scores.max()
                terms.append(sum(-probabilities[t, b, k] * (scores[k] - log_total) for k in range(len(scores))))
    return torch.stack(terms).mean()


CASES = [
    ((0, 1), (0, 1, 2, 3, 4), 5, 7),
    ((0, 1), (0, 1), 3, 11),
    ((1,), (0,), 1, 3),
    ((1, 0), (3, 0, 1), 2, 5),
    ((0, 1), (2,), 4, 2),
    ((0,), (0, 1), 4, 2),
]


@pytest.mark.parametrize(("teacher_ids", "student_ids", "batch", "num_prototypes"), CASES)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_loss_and_gradient(teacher_ids, student_ids, batch, num_prototypes, dtype, tolerance):
    logits = torch.randn(len(student_ids), batch, num_prototypes, dtype=dtype, requires_grad=True)
    slow_logits = logits.detach().double().requires_grad_()
    values = (torch.randn(len(teacher_ids), batch, num_prototypes, dtype=dtype) / 0.5).softmax(-1)
    loss = CrossEntropy(0.1)(student(logits, student_ids), Targets(values, "probabilities", teacher_ids))
    expected = slow_loss(values.double(), teacher_ids, slow_logits, student_ids, 0.1)
    loss.backward()
    expected.backward()
    assert loss.shape == ()
    assert loss.dtype == dtype
    assert abs(loss.item() - expected.item()) <= tolerance * abs(expected.item())
    assert (logits.grad.double() - slow_logits.grad).norm() <= 3 * tolerance * slow_logits.grad.norm()


def test_by_hand():
    # Uniform answers over 4 prototypes cost log 4 whatever the target.
    logits = torch.zeros(3, 2, 4, dtype=torch.float64)
    values = torch.rand(2, 2, 4, dtype=torch.float64)
    values = values / values.sum(-1, keepdim=True)
    loss = CrossEntropy()(student(logits, (0, 1, 2)), Targets(values, "probabilities", (0, 1)))
    assert loss.item() == pytest.approx(math.log(4), rel=1e-14)
    # softmax(0.1 log 3 / 0.1) = (3/4, 1/4) against (1, 0) costs log 4/3.
    logits = torch.tensor([[[0.1 * math.log(3), 0.0]]], dtype=torch.float64)
    certain = Targets(torch.tensor([[[1.0, 0.0]]], dtype=torch.float64), "probabilities", (0,))
    assert CrossEntropy(0.1)(student(logits, (1,)), certain).item() == pytest.approx(math.log(4 / 3), rel=1e-14)


def test_a_view_that_only_meets_itself_gets_no_gradient():
    logits = torch.randn(2, 3, 4, requires_grad=True)
    values = torch.randn(1, 3, 4).softmax(-1)
    CrossEntropy()(student(logits, (0, 1)), Targets(values, "probabilities", (0,))).backward()
    assert logits.grad[0].abs().sum() == 0
    assert logits.grad[1].abs().sum() > 0


def test_half_precision_is_computed_in_float32():
    logits = torch.randn(2, 3, 4).bfloat16()
    values = torch.randn(2, 3, 4).softmax(-1)
    loss = CrossEntropy()(student(logits, (0, 1)), Targets(values, "probabilities", (0, 1)))
    expected = CrossEntropy()(student(logits.float(), (0, 1)), Targets(values, "probabilities", (0, 1)))
    assert loss.dtype == torch.float32
    assert loss == expected


def test_it_takes_probabilities_and_holds_no_state():
    assert CrossEntropy.accepts == {"probabilities"}
    assert not CrossEntropy().state_dict()
    assert not CrossEntropy.couples_batch


@pytest.mark.parametrize("temperature", [0, -0.1])
def test_a_temperature_that_is_not_positive_is_refused(temperature):
    with pytest.raises(ValueError, match=r"temperature of CrossEntropy lies in \(0, inf\), not"):
        CrossEntropy(temperature)


def test_log_probabilities_are_those_that_the_loss_compares():
    logits = torch.randn(2, 3, 4, dtype=torch.float64)
    expected = torch.log(torch.softmax(logits / 0.2, -1))
    torch.testing.assert_close(CrossEntropy(0.2).log_probabilities(student(logits, (0, 1))), expected)


def test_chance_is_the_loss_of_a_student_that_finds_all_prototypes_alike():
    targets = Targets(torch.rand(2, 3, 7, dtype=torch.float64).softmax(-1), "probabilities", (0, 1))
    indifferent = student(torch.full((4, 3, 7), 2.5, dtype=torch.float64), (0, 1, 2, 3))
    loss = CrossEntropy(0.3)
    assert loss.chance(indifferent, targets) == pytest.approx(loss(indifferent, targets).item(), rel=1e-12)
