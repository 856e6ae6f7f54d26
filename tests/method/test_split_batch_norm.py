"""A batch norm over groups of images is each group by itself."""

import copy
import math

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn import functional as F

from sslkit.errors import RecipeError
from sslkit.method.split_batch_norm import SplitBatchNorm


def groups_of(count, size, spread):
    """The rows of each group: neighbours, or each as many rows from the next as there are groups."""
    num_groups = count // size
    if spread:
        return [list(range(first, count, num_groups)) for first in range(num_groups)]
    return [list(range(first, first + size)) for first in range(0, count, size)]


def slow_split(norm, rows, size, spread):
    """Groups one after another through torch's batch norm; the mean of what each makes of the running statistics."""
    output, means, variances = [None] * len(rows), [], []
    for group in groups_of(len(rows), size, spread):
        mean, variance = norm.running_mean.clone(), norm.running_var.clone()
        momentum = norm.momentum if norm.momentum is not None else 1 / (1 + norm.num_batches_tracked.item())
        outputs = F.batch_norm(rows[group], mean, variance, norm.weight, norm.bias, True, momentum, norm.eps)
        for place, answer in zip(group, outputs, strict=True):
            output[place] = answer
        means.append(mean)
        variances.append(variance)
    output = torch.stack(output)
    for fused in norm.children():
        output = fused(output)
    return output, torch.stack(means).mean(0), torch.stack(variances).mean(0)


def randomised(norm):
    for state in (norm.weight, norm.bias, norm.running_mean):
        nn.init.normal_(state) if state is not None else None
    nn.init.uniform_(norm.running_var, 0.5, 2)
    return norm


NORMS = {
    "1d": (lambda: nn.BatchNorm1d(7), (7,)),
    "1d with length": (lambda: nn.BatchNorm1d(7, eps=0.1), (7, 3)),
    "2d": (lambda: nn.BatchNorm2d(5, momentum=0.3), (5, 4, 3)),
    "cumulative": (lambda: nn.BatchNorm2d(5, momentum=None), (5, 2, 2)),
    "not affine": (lambda: nn.BatchNorm2d(5, affine=False), (5, 2, 2)),
    "timm's with activation": (lambda: BatchNormAct2d(5, act_layer=nn.SiLU), (5, 4, 3)),
}


@pytest.mark.parametrize("spread", [False, True])
@pytest.mark.parametrize(("count", "size"), [(12, 4), (15, 3), (6, 6), (14, 2)])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-6)])
@pytest.mark.parametrize("kind", NORMS)
def test_split_is_each_group_by_itself(kind, count, size, spread, dtype, tolerance):
    make, shape = NORMS[kind]
    norm = randomised(make()).to(dtype)
    split = SplitBatchNorm(copy.deepcopy(norm), size, spread)
    for _ in range(2):
        rows = torch.randn(count, *shape, dtype=dtype, requires_grad=True)
        weights = torch.randn(count, *shape, dtype=dtype)
        expected, mean, variance = slow_split(norm, rows, size, spread)
        slow_gradients = torch.autograd.grad((expected * weights).sum(), [rows, *norm.parameters()])
        answer = split(rows)
        gradients = torch.autograd.grad((answer * weights).sum(), [rows, *split.parameters()])
        pairs = [(answer, expected), *zip(gradients, slow_gradients, strict=True)]
        pairs += [(split.running_mean, mean), (split.running_var, variance)]
        for ours, theirs in pairs:
            assert ours.dtype == dtype
            assert (ours - theirs).norm() <= tolerance * theirs.norm()
        norm.running_mean, norm.running_var = mean, variance
        norm.num_batches_tracked += 1
    assert split.num_batches_tracked == 2


@pytest.mark.parametrize("kind", NORMS)
def test_in_eval_mode_it_is_the_batch_norm_it_replaces(kind):
    make, shape = NORMS[kind]
    norm = randomised(make()).eval()
    rows, before = torch.randn(5, *shape), copy.deepcopy(norm.state_dict())
    split = SplitBatchNorm(copy.deepcopy(norm), 4)
    assert not split.training
    assert torch.equal(split(rows), norm(rows))
    assert {name: value.tolist() for name, value in split.state_dict().items()} == {
        name: value.tolist() for name, value in before.items()
    }
    make().load_state_dict(split.state_dict())


@pytest.mark.parametrize("spread", [False, True])
def test_channels_last_stays_channels_last(spread):
    rows = torch.randn(12, 6, 5, 5).to(memory_format=torch.channels_last)
    answer = SplitBatchNorm(nn.BatchNorm2d(6), 4, spread)(rows)
    assert answer.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(answer, SplitBatchNorm(nn.BatchNorm2d(6), 4, spread)(rows.contiguous()))


def test_it_compiles_in_one_graph():
    rows, plain = torch.randn(12, 6, 5, 5), SplitBatchNorm(nn.BatchNorm2d(6), 4, spread=True)
    split = copy.deepcopy(plain)
    assert torch.equal(torch.compile(split, backend="eager", fullgraph=True)(rows), plain(rows))
    assert torch.equal(split.running_var, plain.running_var)


def test_half_precision_images_keep_statistics_in_float32():
    split = SplitBatchNorm(nn.BatchNorm1d(6), 4, spread=True)
    assert split(torch.randn(8, 6).bfloat16()).dtype == torch.bfloat16
    assert split.running_mean.dtype == torch.float32


@pytest.mark.parametrize(("count", "size"), [(256, 32), (64, 8), (48, 4), (36, 12), (10, 5)])
def test_a_query_shares_as_few_images_with_its_key_as_can_be(count, size):
    query, key = (groups_of(count, size, spread) for spread in (False, True))
    shared = max(len({*one} & {*other}) for one in query for other in key)
    assert shared == math.ceil(size / len(key))
    # What the modules do is these groups: an image changes the answers of its own group alone.
    rows = torch.randn(count, 1, dtype=torch.float64)
    moved = rows.clone()
    moved[size + 1] += 1
    for groups, spread in ((query, False), (key, True)):
        norm = SplitBatchNorm(nn.BatchNorm1d(1).double(), size, spread)
        changed = (norm(rows) != norm(moved)).flatten().nonzero().flatten().tolist()
        assert changed == next(group for group in groups if size + 1 in group)


def test_a_batch_that_does_not_divide_is_refused():
    with pytest.raises(RecipeError, match=r"^method\.batch_norm: 9 images do not divide into groups of 4$"):
        SplitBatchNorm(nn.BatchNorm1d(3), 4)(torch.randn(9, 3))
    assert SplitBatchNorm(nn.BatchNorm1d(3), 4).eval()(torch.randn(9, 3)).shape == (9, 3)


def test_a_batch_norm_without_running_statistics_is_refused():
    with pytest.raises(RecipeError, match="without running statistics cannot be split"):
        SplitBatchNorm(nn.BatchNorm1d(3, track_running_stats=False), 4)
