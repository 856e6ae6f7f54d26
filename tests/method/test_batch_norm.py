"""Batch norms over all processes, over one, or over a few images at a time."""

import copy
import math

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torch.nn import functional as F

from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.errors import RecipeError
from sslkit.heads.mlp_head import MLPHead
from sslkit.losses import MSE
from sslkit.method import batch_norm
from sslkit.method.batch_norm import check_groups, set_batch_norm, split_batch_norm, synchronize_batch_norm
from sslkit.method.branch import Branch
from sslkit.method.split_batch_norm import SplitBatchNorm
from sslkit.method.student_teacher import StudentTeacher
from sslkit.recipe.sections import Method
from sslkit.teachers import EMA, Copy

CPU, GPU = torch.device("cpu"), torch.device("cuda")


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


# Whole models


def model(tiny, rule=None):
    student = tiny.branch(None, batch_norm=True)
    student.backbone.conv = nn.Sequential(student.backbone.conv, BatchNormAct2d(4)).double()
    return StudentTeacher(student, teacher_update=rule or EMA(), collapse=None, loss=MSE())


def norms(branch):
    return [module for module in branch.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def test_student_and_teacher_are_grouped_differently_and_keep_their_weights(tiny):
    pair = model(tiny)
    before, storage = copy.deepcopy(pair.state_dict()), [p.data_ptr() for p in pair.parameters()]
    split_batch_norm(pair, 2)
    assert [(type(n), n.num_images, n.spread) for n in norms(pair.student)] == [(SplitBatchNorm, 2, False)] * 2
    assert [(type(n), n.num_images, n.spread) for n in norms(pair.teacher)] == [(SplitBatchNorm, 2, True)] * 2
    assert list(pair.state_dict()) == list(before)
    assert all(torch.equal(value, before[name]) for name, value in pair.state_dict().items())
    assert [p.data_ptr() for p in pair.parameters()] == storage
    assert not any(parameter.requires_grad for parameter in pair.teacher.parameters())
    plain = model(tiny)
    plain.load_state_dict(pair.state_dict())


def test_split_models_answer_as_their_parts(tiny):
    pair, views = model(tiny), tiny.views(batch=6, num_local=0).select([0])
    plain = copy.deepcopy(pair)
    split_batch_norm(pair, 2)
    for start in (0, 2, 4):
        whole, part = pair.student(views).embedding, plain.student(views.narrow(start, start + 2)).embedding
        torch.testing.assert_close(whole[:, start : start + 2], part, rtol=1e-11, atol=1e-14)
    images = views.groups[0].images
    for first in range(3):
        alone = views.groups[0]._replace(images=images[:, first::3])
        part = plain.teacher(type(views)((alone,))).embedding
        torch.testing.assert_close(pair.teacher_forward(views).embedding[:, first::3], part, rtol=1e-11, atol=1e-14)


def test_a_teacher_that_is_the_student_has_the_students_groups(tiny):
    pair = model(tiny, Copy())
    split_batch_norm(pair, 2)
    assert [norm.spread for norm in norms(pair.teacher)] == [False, False]


@pytest.mark.parametrize("rule", [EMA(), Copy()])
def test_synchronized_batch_norms_keep_weights_and_activations(tiny, rule):
    pair, views = model(tiny, rule), tiny.views()
    plain = copy.deepcopy(pair)
    synchronize_batch_norm(pair)
    assert all(isinstance(norm, nn.SyncBatchNorm) for norm in norms(pair.student) + norms(pair.teacher))
    assert list(pair.state_dict()) == list(plain.state_dict())
    # Alone in the world they are plain ones.
    assert torch.equal(pair.student(views).embedding, plain.student(views).embedding)
    assert torch.equal(pair.teacher_forward(views).embedding, plain.teacher_forward(views).embedding)


@pytest.mark.parametrize(
    ("images", "device", "processes", "made"),
    [
        ("synchronized", GPU, 2, nn.SyncBatchNorm),
        ("synchronized", GPU, 1, nn.BatchNorm1d),
        ("synchronized", CPU, 2, nn.BatchNorm1d),
        ("local", GPU, 2, nn.BatchNorm1d),
        (4, GPU, 2, SplitBatchNorm),
        (4, CPU, 1, SplitBatchNorm),
    ],
)
def test_which_batch_norm_a_recipe_gets(tiny, monkeypatch, images, device, processes, made):
    monkeypatch.setattr(batch_norm, "world_size", lambda: processes)
    pair = model(tiny)
    set_batch_norm(pair, images, device)
    assert {type(norms(branch)[1]) for branch in (pair.student, pair.teacher)} == {made}


def test_a_resnet_splits_and_its_weights_load_into_timm(tmp_path):
    small = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]}
    backbone = TimmBackbone("resnet18", model_args=small)
    pair = StudentTeacher(Branch(backbone, MLPHead(16)), teacher_update=EMA(), collapse=None, loss=MSE())
    split_batch_norm(pair, 2)
    images = torch.randn(4, 3, 32, 32)
    pair.to(memory_format=torch.channels_last).student.backbone(images)
    backbone.save(tmp_path)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, num_classes=0).eval()
    torch.testing.assert_close(loaded(images), backbone.eval()(images).cls)


@pytest.mark.parametrize(
    ("num_images", "batch_size", "accumulation", "choices"),
    [
        (32, 100, 1, [20, 25, 50, "local"]),
        (64, 64, 1, [8, 16, 32, "local"]),
        (8, 24, 2, [4, 6, 12, "local"]),
        (8, 30, 4, ["local"]),
        (2, 7, 1, ["local"]),
    ],
)
def test_groups_that_the_batch_does_not_hold_are_refused(num_images, batch_size, accumulation, choices):
    with pytest.raises(RecipeError) as refused:
        check_groups(num_images, batch_size, accumulation)
    said, *offered = str(refused.value).split("\n")
    images = f"{batch_size} images of a process" + (f" in {accumulation} micro-batches" if accumulation > 1 else "")
    add = "Add one of" if len(choices) > 1 else "Add"
    assert said == f"method.batch_norm: the {images} cannot be cut into two or more groups of {num_images}. {add}"
    assert offered == [f"  --method.batch_norm {choice}" for choice in choices]
    for choice in choices[:-1]:
        check_groups(choice, batch_size, accumulation)


@pytest.mark.parametrize(("num_images", "batch_size", "accumulation"), [(32, 256, 1), (2, 4, 1), (4, 8, 2), (6, 36, 3)])
def test_groups_that_divide_every_micro_batch_are_taken(num_images, batch_size, accumulation):
    check_groups(num_images, batch_size, accumulation)


def test_one_image_has_no_statistics():
    with pytest.raises(RecipeError, match=r"method\.batch_norm is at least 2, not 1"):
        Method(None, None, None, None, None, batch_norm=1)
