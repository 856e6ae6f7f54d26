import pytest
import torch

from sslkit.collapse import BatchSoftmax, SinkhornKnopp
from sslkit.collapse.sinkhorn_knopp import balance
from sslkit.schedules import Cosine, Warmup
from sslkit.types import Projection


def teacher(logits, ids=(0, 1)):
    return Projection(logits, logits, logits, logits, ids)


def slow_sinkhorn(scores, epsilon, num_iters):
    """The published algorithm on one view, element by element: total 1, rows 1 / K, columns 1 / B, times B."""
    batch, num_prototypes = scores.shape
    weights = [[float(torch.exp(scores[b, k].double() / epsilon)) for k in range(num_prototypes)] for b in range(batch)]
    total = sum(sum(row) for row in weights)
    weights = [[weight / total for weight in row] for row in weights]
    for _ in range(num_iters):
        for k in range(num_prototypes):
            column = sum(weights[b][k] for b in range(batch))
            for b in range(batch):
                weights[b][k] /= column * num_prototypes
        for b in range(batch):
            row = sum(weights[b])
            weights[b] = [weight / row / batch for weight in weights[b]]
    return torch.tensor(weights, dtype=torch.float64) * batch


@pytest.mark.parametrize("shape", [(2, 5, 7), (1, 9, 3), (2, 1, 4), (3, 4, 1)])
@pytest.mark.parametrize("num_iters", [1, 3])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 2e-6)])
def test_each_view_is_balanced_by_itself(shape, num_iters, dtype, tolerance):
    logits = torch.rand(shape, dtype=dtype) * 2 - 1
    targets = SinkhornKnopp(epsilon=0.05, num_iters=num_iters)(teacher(logits, tuple(range(shape[0]))))
    expected = torch.stack([slow_sinkhorn(view, 0.05, num_iters) for view in logits])
    assert targets.kind == "probabilities"
    assert targets.values.dtype == dtype
    assert (targets.values.double() - expected).norm() <= tolerance * expected.norm()


def test_by_hand():
    # exp(logits) = [[2, 1], [1, 1]]: columns sum to 3 and 2, then rows [2/3, 1/2] and [1/3, 1/2] are scaled to 1.
    logits = torch.log(torch.tensor([[[2.0, 1.0], [1.0, 1.0]]], dtype=torch.float64))
    expected = torch.tensor([[[4 / 7, 3 / 7], [2 / 5, 3 / 5]]], dtype=torch.float64)
    torch.testing.assert_close(balance(logits, 1.0, 1), expected, rtol=1e-14, atol=0)
    torch.testing.assert_close(BatchSoftmax(1.0)(teacher(logits, (0,))).values, expected, rtol=1e-14, atol=0)


def test_rows_sum_to_1_and_columns_tend_to_equal_use():
    targets = balance(torch.rand(2, 24, 6, dtype=torch.float64), 0.05, 200)
    torch.testing.assert_close(targets.sum(2), torch.ones(2, 24, dtype=torch.float64), rtol=1e-13, atol=0)
    torch.testing.assert_close(targets.sum(1), torch.full((2, 6), 4.0, dtype=torch.float64), rtol=1e-4, atol=0)


def test_a_constant_answer_cannot_be_a_sharp_target():
    one_answer = torch.randn(1, 1, 5, dtype=torch.float64).expand(2, 8, 5)
    targets = SinkhornKnopp()(teacher(one_answer)).values
    torch.testing.assert_close(targets, torch.full((2, 8, 5), 0.2, dtype=torch.float64), rtol=1e-12, atol=0)


def test_large_scores_do_not_overflow():
    logits = torch.rand(2, 6, 4) + 1000
    reference = balance(logits.double() - 1000, 0.05, 3)
    torch.testing.assert_close(balance(logits.double(), 0.05, 3), reference, rtol=1e-9, atol=0)
    assert balance(logits, 0.05, 3).isfinite().all()


def test_a_prototype_far_from_every_image_is_used_as_much_as_any():
    logits = torch.rand(1, 6, 4, dtype=torch.float64)
    far = logits - torch.tensor([0.0, 0.0, 1000.0, 0.0])
    torch.testing.assert_close(balance(far, 0.05, 3), balance(logits, 0.05, 3), rtol=1e-9, atol=0)


@pytest.mark.parametrize("scale", [10, 1000])
def test_scores_of_any_spread_give_probabilities(scale):
    targets = balance(torch.randn(2, 16, 32) * scale, 0.05, 3)
    torch.testing.assert_close(targets.sum(2), torch.ones(2, 16))


def test_half_precision_is_computed_in_float32_and_gradients_stop():
    logits = torch.randn(2, 3, 4).bfloat16().requires_grad_()
    targets = SinkhornKnopp()(teacher(logits)).values
    assert targets.dtype == torch.float32
    assert not targets.requires_grad
    torch.testing.assert_close(targets, balance(logits.float(), 0.05, 3))


def test_they_hold_no_state():
    logits = torch.randn(2, 3, 4)
    for operator in (SinkhornKnopp(), BatchSoftmax()):
        first = operator(teacher(logits)).values
        operator.update(teacher(torch.randn(2, 3, 4)))
        assert torch.equal(operator(teacher(logits)).values, first)
        assert not operator.state_dict()


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SinkhornKnopp(epsilon=0), r"epsilon of SinkhornKnopp lies in \(0, inf\), not 0"),
        (lambda: SinkhornKnopp(num_iters=0), r"num_iters of SinkhornKnopp lies in \[1, 1000\], not 0"),
        (lambda: BatchSoftmax(0), r"temperature of BatchSoftmax lies in \(0, inf\), not 0"),
        (lambda: BatchSoftmax(-0.1), r"temperature of BatchSoftmax lies in \(0, inf\), not -0.1"),
        (
            lambda: BatchSoftmax(Warmup(0, 1, "3 epochs")),
            "temperature.start of BatchSoftmax lies in .0, inf., not 0",
        ),
        (
            lambda: BatchSoftmax(Cosine(1, 1, "3 epochs")),
            "temperature.warmup_from of BatchSoftmax lies in .0, inf., not 0",
        ),
    ],
)
def test_numbers_out_of_range_are_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()
