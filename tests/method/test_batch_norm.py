"""Batch norms over all processes, over one, or over a few images at a time."""

import copy

import pytest
import timm
import torch
from timm.layers import BatchNormAct2d
from torch import nn

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
