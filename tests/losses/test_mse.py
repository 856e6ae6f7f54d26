import math

import pytest
import torch

from sslkit.collapse import Centering
from sslkit.errors import RecipeError
from sslkit.losses import MSE
from sslkit.types import Projection, Targets


def student(embedding, ids, logits=None):
    return Projection(embedding, embedding, embedding, logits, tuple(ids))


def slow_loss(mine, student_ids, theirs, teacher_ids, reduction):
    """2 - 2 cosine of every pair of different views, image by image."""
    terms = []
    for t, teacher_id in enumerate(teacher_ids):
        for s, student_id in enumerate(student_ids):
            if teacher_id != student_id:
                cosines = []
                for a, b in zip(mine[s], theirs[t], strict=True):
                    cosines.append(sum(a * b) / (sum(a * a) ** 0.5 * sum(b * b) ** 0.5))
                terms.append(2 - 2 * sum(cosines) / len(cosines))
    return sum(terms) if reduction == "sum" else sum(terms) / len(terms)


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("kind", ["embedding", "logits"])
@pytest.mark.parametrize(
    ("teacher_ids", "student_ids", "batch", "width"),
    [((0, 1), (0, 1), 3, 7), ((0, 1), (0, 1, 2, 3), 5, 4), ((1,), (0,), 1, 3), ((1, 0), (3, 0, 1), 2, 5)],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-6)])
def test_loss_and_gradient(teacher_ids, student_ids, batch, width, kind, reduction, dtype, tolerance):
    outputs = torch.randn(len(student_ids), batch, width, dtype=dtype, requires_grad=True)
    slow_outputs = outputs.detach().double().requires_grad_()
    values = torch.randn(len(teacher_ids), batch, width, dtype=dtype) * 3
    unused = torch.randn(len(student_ids), batch, width + 1)
    answers = student(outputs, student_ids) if kind == "embedding" else student(unused, student_ids, outputs)
    loss = MSE(reduction)(answers, Targets(values, kind, teacher_ids))
    expected = slow_loss(slow_outputs, student_ids, values.double(), teacher_ids, reduction)
    loss.backward()
    expected.backward()
    assert loss.shape == ()
    assert loss.dtype == dtype
    assert abs(loss.item() - expected.item()) <= tolerance * abs(expected.item())
    assert (outputs.grad.double() - slow_outputs.grad).norm() <= tolerance * slow_outputs.grad.norm()


def test_byols_two_directions_by_hand():
    # Cosines 4/5 and -1: 2 - 8/5 one way, 4 the other.
    mine = torch.tensor([[[3.0, 4.0]], [[2.0, 0.0]]], dtype=torch.float64)
    theirs = torch.tensor([[[-5.0, 0.0]], [[0.0, 7.0]]], dtype=torch.float64)
    targets = Targets(theirs, "embedding", (0, 1))
    assert MSE("sum")(student(mine, (0, 1)), targets).item() == pytest.approx(0.4 + 4.0, rel=1e-15)
    assert MSE()(student(mine, (0, 1)), targets).item() == pytest.approx(2.2, rel=1e-15)
    opposite = Targets(-mine.flip(0), "embedding", (0, 1))
    assert MSE("sum")(student(mine, (0, 1)), opposite).item() == pytest.approx(8.0, rel=1e-15)


def test_centered_logits_are_compared_unsharpened():
    logits = torch.tensor([[[1.0, 3.0]], [[2.0, 2.0]]], dtype=torch.float64)
    centering = Centering(2, temperature=None)
    centering.center = torch.tensor([1.0, 2.0], dtype=torch.float64)
    targets = centering(student(logits, (0, 1), logits))
    # Teacher minus center: (0, 1) and (1, 0); the student's (2, 2) and (1, 3) are not centered.
    expected = ((2 - 2 / math.sqrt(2)) + (2 - 2 / math.sqrt(10))) / 2
    assert MSE()(student(logits, (0, 1), logits), targets).item() == pytest.approx(expected, rel=1e-14)


def test_a_small_loss_keeps_its_digits():
    mine = torch.tensor([[[1.0, 1e-4]]])
    theirs = torch.tensor([[[1.0, 0.0]]])
    angle = math.atan(1e-4)
    loss = MSE()(student(mine, (0,)), Targets(theirs, "embedding", (1,)))
    assert loss.item() == pytest.approx(4 * math.sin(angle / 2) ** 2, rel=1e-5)


def test_the_length_of_outputs_does_not_count():
    mine, theirs = torch.randn(2, 3, 4, dtype=torch.float64), torch.randn(2, 3, 4, dtype=torch.float64)
    targets, longer = (Targets(theirs * length, "embedding", (0, 1)) for length in (1, 50))
    expected = MSE()(student(mine, (0, 1)), targets)
    torch.testing.assert_close(MSE()(student(0.1 * mine, (0, 1)), longer), expected, rtol=1e-13, atol=0)


def test_half_precision_is_computed_in_float32():
    mine, theirs = torch.randn(2, 3, 4).bfloat16(), torch.randn(2, 3, 4).bfloat16()
    loss = MSE()(student(mine, (0, 1)), Targets(theirs, "embedding", (0, 1)))
    assert loss.dtype == torch.float32
    assert loss == MSE()(student(mine.float(), (0, 1)), Targets(theirs.float(), "embedding", (0, 1)))


def test_what_it_takes():
    assert MSE.accepts == {"embedding", "logits"}
    assert not MSE().state_dict()
    assert not MSE().couples_batch
    assert not MSE().needs_negatives
    with pytest.raises(RecipeError, match="reduction is one of mean, sum, not 'none'"):
        MSE("none")


@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_chance_is_the_loss_of_outputs_at_right_angles(reduction):
    axes = torch.eye(2, dtype=torch.float64)
    mine, theirs = axes[0].expand(3, 4, 2), axes[1].expand(2, 4, 2)
    outputs, targets = student(mine, (0, 1, 2)), Targets(theirs, "embedding", (0, 1))
    loss = MSE(reduction)
    assert loss.chance(outputs, targets) == pytest.approx(loss(outputs, targets).item(), rel=1e-12)
