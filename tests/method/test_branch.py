import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslkit.contracts import Predictor
from sslkit.errors import RecipeError
from sslkit.heads.dino_head import DINOHead
from sslkit.heads.mlp_head import MLPHead
from sslkit.heads.mlp_predictor import MLPPredictor
from sslkit.heads.swav_head import SwAVHead
from sslkit.method.branch import Branch


class LinearPredictor(Predictor):
    def __init__(self, dim=6):
        super().__init__()
        self.linear = nn.Linear(dim, dim)

    def forward(self, projection):
        return self.linear(projection)


def test_branch_sees_each_view_by_itself(tiny):
    student, views = tiny.branch(), tiny.views(batch=5, num_local=3)
    outputs = student(views)
    assert outputs.view_ids == (0, 1, 2, 3, 4)
    images = [view for group in views.groups for view in group.images]
    for v, view in enumerate(images):
        for b, image in enumerate(view):
            features = student.backbone(image[None]).cls
            projection = student.head.projector(features)
            embedding = projection / projection.norm()
            logits = embedding @ student.head.prototypes.weight.T
            torch.testing.assert_close(outputs.features[v, b], features[0], rtol=1e-11, atol=1e-14)
            torch.testing.assert_close(outputs.projection[v, b], projection[0], rtol=1e-11, atol=1e-14)
            torch.testing.assert_close(outputs.embedding[v, b], embedding[0], rtol=1e-11, atol=1e-14)
            torch.testing.assert_close(outputs.logits[v, b], logits[0], rtol=1e-11, atol=1e-14)


def test_one_backbone_forward_a_resolution_and_the_head_once(tiny):
    student, views = tiny.branch(batch_norm=True), tiny.views()
    student(views)
    assert student.backbone.forwards == 2
    assert student.head.projector[1].num_batches_tracked == 1


class NormedPredictor(LinearPredictor):
    def __init__(self):
        super().__init__()
        self.linear = nn.Sequential(nn.Linear(6, 6), nn.BatchNorm1d(6), nn.ReLU(), nn.Linear(6, 6))


def normed(tiny, predictor=True, separate_views=True):
    """A branch with batch norm everywhere, which tells apart what passes together from what passes by itself."""
    branch = tiny.branch(batch_norm=True, predictor=NormedPredictor() if predictor else None)
    branch.backbone.conv = nn.Sequential(branch.backbone.conv, nn.BatchNorm2d(4)).double()
    branch.separate_views = separate_views
    return branch


def slow_branch(student, views, predict):
    """One view after another through every part."""
    embeddings, logits = [], []
    for group in views.groups:
        for images in group.images:
            rows = student.head.projector(student.backbone(images).cls)
            if predict and student.predictor is not None:
                rows = student.predictor(rows)
            embeddings.append(rows / rows.norm(dim=1, keepdim=True))
            logits.append(embeddings[-1] @ student.head.prototypes.weight.T)
    return torch.stack(embeddings), torch.stack(logits)


@pytest.mark.parametrize("predict", [True, False])
@pytest.mark.parametrize("num_local", [0, 3])
def test_separate_views_pass_one_by_one(tiny, predict, num_local):
    student, views = normed(tiny), tiny.views(batch=5, num_local=num_local)
    slow = copy.deepcopy(student)
    outputs = student(views, predict)
    expected = slow_branch(slow, views, predict)
    weights = torch.randn_like(expected[1])
    for ours, theirs in zip((outputs.embedding, outputs.logits), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-14)
    (outputs.logits * weights).sum().backward()
    (expected[1] * weights).sum().backward()
    for name, parameter in slow.named_parameters():
        mine = student.get_parameter(name).grad
        assert (mine is None) == (parameter.grad is None) == (name.startswith("predictor") and not predict)
        if mine is not None:
            torch.testing.assert_close(mine, parameter.grad, rtol=1e-11, atol=1e-13)
    for name, buffer in slow.named_buffers():
        torch.testing.assert_close(student.get_buffer(name), buffer, rtol=1e-11, atol=1e-14)
    assert student.backbone.forwards == student.head.projector[1].num_batches_tracked == 2 + num_local


def test_separate_views_change_nothing_without_batch_norm(tiny):
    together, views = tiny.branch(predictor=LinearPredictor()), tiny.views()
    apart = Branch(together.backbone, together.head, together.predictor, separate_views=True)
    for name in ("features", "projection", "embedding", "logits"):
        mine, other = (getattr(branch(views), name) for branch in (apart, together))
        torch.testing.assert_close(mine, other, rtol=1e-12, atol=1e-14)
    assert apart(views).view_ids == together(views).view_ids
    assert not torch.allclose(normed(tiny)(views).logits, normed(tiny, separate_views=False)(views).logits)


@pytest.mark.parametrize("separate_views", [True, False])
def test_the_teacher_sees_views_as_the_student_does(tiny, separate_views):
    assert normed(tiny, separate_views=separate_views).as_teacher().separate_views == separate_views


def test_a_student_that_teaches_answers_for_separate_views_too(tiny):
    student, views = normed(tiny), tiny.views()
    slow = copy.deepcopy(student)
    targets = student.as_targets(student(views))
    for ours, theirs in zip((targets.embedding, targets.logits), slow_branch(slow, views, False), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-11, atol=1e-14)
        assert not ours.requires_grad


def test_predictor_sits_between_projection_and_norm(tiny):
    predictor = LinearPredictor()
    student, views = tiny.branch(predictor=predictor), tiny.views()
    outputs = student(views)
    expected = F.normalize(predictor(outputs.projection), dim=-1)
    torch.testing.assert_close(outputs.embedding, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(outputs.logits, expected @ student.head.prototypes.weight.T, rtol=1e-12, atol=1e-15)
    plain = student(views, predict=False)
    torch.testing.assert_close(plain.embedding, F.normalize(outputs.projection, dim=-1), rtol=1e-12, atol=0)


def test_a_head_that_does_not_normalize(tiny):
    student, views = tiny.branch(num_prototypes=None), tiny.views()
    student.head.normalize = False
    outputs = student(views)
    assert torch.equal(outputs.embedding, outputs.projection)
    assert outputs.logits is None
    assert outputs.score is None


def test_score_gives_the_branchs_own_logits_without_gradient(tiny):
    student = tiny.branch()
    outputs = student(tiny.views())
    scores = outputs.score(outputs.embedding)
    torch.testing.assert_close(scores, outputs.logits, rtol=1e-13, atol=1e-15)
    assert outputs.logits.requires_grad
    assert not scores.requires_grad
    with torch.no_grad():
        student.head.prototypes.weight.mul_(2)
    torch.testing.assert_close(outputs.score(outputs.embedding), 2 * scores, rtol=1e-13, atol=1e-15)


def test_half_precision_answers_are_raised_to_float32(tiny):
    with torch.autocast("cpu", torch.bfloat16):
        outputs = tiny.branch(dtype=torch.float32)(tiny.views(dtype=torch.float32))
    assert outputs.projection.dtype == torch.bfloat16
    assert outputs.embedding.dtype == outputs.logits.dtype == torch.float32


@pytest.mark.parametrize("predictor", [None, LinearPredictor()], ids=["plain", "predictor"])
def test_as_targets_is_what_the_branch_says_without_its_predictor(tiny, predictor):
    student, views = tiny.branch(predictor=predictor), tiny.views()
    targets, plain = student.as_targets(student(views)), student(views, predict=False)
    for name in ("features", "projection", "embedding", "logits"):
        torch.testing.assert_close(getattr(targets, name), getattr(plain, name).detach(), rtol=1e-13, atol=1e-15)
        assert not getattr(targets, name).requires_grad
    assert targets.view_ids == plain.view_ids


class Dropping(nn.Module):
    """One of every module by which torch, torchvision and timm drop something."""

    def __init__(self):
        super().__init__()
        from timm.layers import DropBlock2d, DropPath, PatchDropout
        from torchvision.ops import StochasticDepth

        self.parts = nn.ModuleList(
            [
                nn.Dropout(0.5),
                nn.Dropout2d(0.5),
                nn.AlphaDropout(0.5),
                DropPath(0.5),
                DropBlock2d(0.5),
                PatchDropout(0.5),
                StochasticDepth(0.5, "row"),
            ]
        )
        self.attention = nn.MultiheadAttention(4, 2, dropout=0.5)
        self.pooling_with_a_p = nn.LPPool1d(2, 2)


def test_the_teacher_drops_nothing_trains_its_batch_norm_and_has_no_gradient(tiny):
    student = tiny.branch(batch_norm=True, predictor=LinearPredictor())
    student.backbone.dropping = Dropping()
    teacher = student.as_teacher()
    dropping = teacher.backbone.dropping
    names = ("p", "prob", "drop_prob")
    rates = [getattr(part, name) for part in dropping.parts for name in names if hasattr(part, name)]
    assert rates == [0.0] * len(dropping.parts)
    assert dropping.attention.dropout == 0.0
    assert dropping.pooling_with_a_p.norm_type == 2
    assert all(module.training for module in teacher.modules())
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    assert teacher.predictor is None
    assert student.backbone.dropping.parts[0].p == 0.5
    assert student.backbone.dropping.attention.dropout == 0.5


def test_the_teacher_answers_the_same_twice_where_the_student_drops(tiny):
    student, views = tiny.branch(drop=0.5), tiny.views()
    teacher = student.as_teacher()
    assert not torch.equal(student(views).features, student(views).features)
    assert torch.equal(teacher(views).features, teacher(views).features)


def test_parts_are_those_that_exist(tiny):
    assert set(tiny.branch().parts()) == {"backbone", "projector", "prototypes"}
    assert set(tiny.branch(num_prototypes=None, predictor=LinearPredictor()).parts()) == {
        "backbone",
        "projector",
        "predictor",
    }


def test_a_branch_is_built_of_backbone_and_head_alone(tiny):
    assert Branch(tiny.Backbone(), tiny.Head()).predictor is None


def test_a_module_that_is_no_backbone_is_refused(tiny):
    with pytest.raises(TypeError, match=r"takes a sslkit\.Backbone, which answers with Features, not a Sequential"):
        Branch(nn.Sequential(nn.Flatten(), nn.Linear(12, 5)), tiny.Head())


@pytest.mark.parametrize(
    "head", [MLPHead(99, embed_dim=6), DINOHead(99, 7, 4, 6), DINOHead(99, None, 4, 6), SwAVHead(99, 7, 4, 6)]
)
def test_a_head_for_other_features_is_refused(head, tiny):
    said = "was built with in_dim=99, but the embed_dim of TinyBackbone is 5"
    with pytest.raises(RecipeError, match=rf"method\.head: {type(head).__name__} {said}"):
        Branch(tiny.Backbone(), head)


def test_a_predictor_for_other_projections_is_refused(tiny):
    said = "was built with dim=99, but the embed_dim of TinyHead is 6"
    with pytest.raises(RecipeError, match=rf"method\.predictor: MLPPredictor {said}"):
        Branch(tiny.Backbone(), tiny.Head(), MLPPredictor(99))


def test_parts_that_fit_or_do_not_say_their_size_are_taken(tiny):
    assert Branch(tiny.Backbone(), MLPHead(5, embed_dim=6), MLPPredictor(6)).head.in_dim == 5
    assert Branch(tiny.Backbone(), tiny.Head(), LinearPredictor(99)).predictor.dim is None


def test_a_compiled_backbone_is_one(tiny):
    assert Branch(torch.compile(tiny.Backbone()), tiny.Head()).backbone.embed_dim == 5
