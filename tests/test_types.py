import pytest
import torch

from sslkit.errors import RecipeError
from sslkit.types import (
    Projection,
    Targets,
    ViewGroup,
    Views,
    at_least_float32,
    in_wider_dtype,
    matching_pairs,
    unit_length,
)


@pytest.fixture
def views():
    globals_, locals_ = torch.randn(2, 5, 3, 8, 8), torch.randn(3, 5, 3, 4, 4)
    return Views((ViewGroup(globals_, (0, 1)), ViewGroup(locals_, (2, 3, 4))))


def projection(ids, batch=5):
    parts = [torch.randn(len(ids), batch, size, requires_grad=True) for size in (7, 6, 6, 11)]
    return Projection(*parts, tuple(ids), score=lambda embedding: embedding)


def test_choices_of_views(views):
    assert views.choose("all") == (0, 1, 2, 3, 4)
    assert views.choose("globals") == (0, 1)
    assert views.choose([3, 0]) == (3, 0)
    assert views.batch_size == 5


def test_select_keeps_images_with_their_ids(views):
    chosen = views.select((1, 4, 2))
    assert chosen.view_ids == (1, 2, 4)
    assert torch.equal(chosen.groups[0].images, views.groups[0].images[1:])
    assert torch.equal(chosen.groups[1].images, views.groups[1].images[[0, 2]])
    assert views.select((0, 1)).groups == views.groups[:1]


def test_selecting_a_whole_resolution_copies_nothing(views):
    assert views.select((0, 1, 3)).groups[0].images is views.groups[0].images


def test_narrow_takes_the_same_images_of_every_view(views):
    narrow = views.narrow(1, 4)
    assert narrow.batch_size == 3
    for group, whole in zip(narrow.groups, views.groups, strict=True):
        assert torch.equal(group.images, whole.images[:, 1:4])


def test_projection_select_follows_the_order_asked_for():
    whole = projection((0, 1, 2, 3))
    some = whole.select((3, 1))
    assert some.view_ids == (3, 1)
    assert torch.equal(some.logits, whole.logits[[3, 1]])
    assert torch.equal(some.embedding, whole.embedding[[3, 1]])
    assert some.score is whole.score
    assert whole.select((0, 1, 2, 3)) is whole


def test_projection_detach_cuts_every_gradient():
    free = projection((0, 1)).detach()
    assert not any(t.requires_grad for t in (free.features, free.projection, free.embedding, free.logits))


def test_join_undoes_narrowing():
    whole = projection((0, 1), batch=7)
    slices = ((0, 2), (2, 3), (3, 7))
    parts = [whole._each(lambda t, a=a, b=b: t[:, a:b], whole.view_ids) for a, b in slices]
    joined = Projection.join(parts)
    for name in ("features", "projection", "embedding", "logits"):
        assert torch.equal(getattr(joined, name), getattr(whole, name))
    assert joined.view_ids == whole.view_ids


def test_join_without_prototypes():
    part = Projection(torch.ones(1, 2, 3), torch.ones(1, 2, 4), torch.ones(1, 2, 4), None, (0,))
    assert Projection.join([part, part]).logits is None
    assert Projection.join([part, part]).embedding.shape == (1, 4, 4)


def test_targets_narrow_by_image_and_keep_all_negatives():
    targets = Targets(torch.randn(2, 6, 3), "embedding", (0, 1), negatives=torch.randn(9, 3))
    narrow = targets.narrow(2, 5)
    assert torch.equal(narrow.values, targets.values[:, 2:5])
    assert narrow.negatives is targets.negatives


@pytest.mark.parametrize(
    ("teacher", "student", "pairs"),
    [
        ((0, 1), (0, 1), [(0, 1), (1, 0)]),
        ((0, 1), (0, 1, 2), [(0, 1), (0, 2), (1, 0), (1, 2)]),
        ((1,), (0,), [(0, 0)]),
        ((1, 0), (0, 1), [(0, 0), (1, 1)]),
    ],
)
def test_pairs_are_of_different_views_whatever_their_positions(teacher, student, pairs):
    assert matching_pairs(teacher, student) == pairs


def test_dino_counts_2v_minus_2_pairs():
    assert len(matching_pairs((0, 1), range(12))) == 2 * 12 - 2


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [
        (torch.bfloat16, torch.float32),
        (torch.float16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
    ],
)
def test_at_least_float32(dtype, wide):
    tensor = torch.ones(2, dtype=dtype)
    assert at_least_float32(tensor).dtype == wide
    assert (at_least_float32(tensor) is tensor) == (dtype == wide)


@pytest.mark.parametrize("state", [torch.float32, torch.float64])
@pytest.mark.parametrize("new", [torch.float32, torch.float64])
def test_a_state_and_what_enters_it_take_the_wider_dtype(state, new):
    old, fresh = torch.rand(3, dtype=state), torch.rand(3, dtype=new)
    wide = torch.float64 if torch.float64 in (state, new) else torch.float32
    ours = in_wider_dtype(old, fresh)
    assert [tensor.dtype for tensor in ours] == [wide, wide]
    assert torch.equal(ours[0], old.to(wide))
    assert torch.equal(ours[1], fresh.to(wide))
    assert (ours[0] is old) == (state == wide)


def test_unit_length():
    vectors = torch.tensor([[3.0, 4.0], [0.0, 0.0]], dtype=torch.bfloat16)
    assert torch.equal(unit_length(vectors), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert unit_length(vectors.double()).dtype == torch.float64


def test_views_of_crops_are_those_of_groups(views):
    crops = [image for group in views.groups for image in group.images]
    made = Views.of(crops)
    assert made.num_globals == 2
    assert [group.view_ids for group in made.groups] == [(0, 1), (2, 3, 4)]
    assert all(torch.equal(ours.images, theirs.images) for ours, theirs in zip(made.groups, views.groups, strict=True))
    assert Views.of(crops[:1], num_globals=1).choose("globals") == (0,)
    assert Views.of(views.groups[0].images).view_ids == (0, 1)


def test_views_of_alternating_sizes_keep_their_order():
    crops = [torch.randn(3, 2, size, size + 1) for size in (5, 4, 5)]
    made = Views.of(crops)
    assert made.view_ids == (0, 1, 2)
    assert [tuple(group.images.shape) for group in made.groups] == [(1, 3, 2, 5, 6), (1, 3, 2, 4, 5), (1, 3, 2, 5, 6)]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            [((4, 3, 8, 8), (0, 1))],
            r"are normalised floating \(V, B, C, H, W\) .*not torch.float32 \(4, 3, 8, 8\) with",
        ),
        ([((2, 4, 3, 8, 8), (0,))], r"\(2, 4, 3, 8, 8\) with \(0,\); Views.of makes groups"),
        ([((2, 4, 3, 8, 8), (0, 0))], r"every view has its own id .* unlike \(0, 0\): 4 images"),
        ([((1, 4, 3, 8, 8), (0,)), ((1, 4, 3, 4, 4), (0,))], r"unlike \(0,\): 4 images, \(0,\): 4 images"),
        ([((1, 4, 3, 8, 8), (0,)), ((1, 5, 3, 4, 4), (1,))], r"unlike \(0,\): 4 images, \(1,\): 5 images"),
    ],
)
def test_views_of_a_wrong_shape_are_refused(groups, message):
    with pytest.raises(ValueError, match=message):
        Views(tuple(ViewGroup(torch.zeros(shape), ids) for shape, ids in groups))


def test_pixels_as_they_were_read_are_no_views():
    with pytest.raises(ValueError, match=r"not torch.uint8 \(2, 4, 3, 8, 8\) .* MultiCrop of images"):
        Views.of(torch.zeros(2, 4, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(("teacher", "student"), [((0,), (0,)), ((), (0, 1)), ((1, 1), (1,))])
def test_no_two_different_views_are_refused(teacher, student):
    with pytest.raises(RecipeError, match="no two different views to compare"):
        matching_pairs(teacher, student)


def test_a_projection_of_plain_tensors_can_do_what_a_branch_s_can():
    embedding, logits = torch.randn(3, 5, 4, requires_grad=True), torch.randn(3, 5, 7)
    made = Projection.of(embedding=embedding, logits=logits, score=torch.nn.Identity())
    assert made.view_ids == (0, 1, 2)
    assert made.embedding is embedding
    assert made.logits is logits
    assert made.score(logits) is logits
    chosen = Projection.join([made.select([2, 0]), made.select([2, 0])]).detach()
    assert torch.equal(chosen.embedding, torch.cat([embedding[[2, 0]]] * 2, 1))
    assert torch.equal(chosen.logits, torch.cat([logits[[2, 0]]] * 2, 1))
    assert chosen.features.shape == chosen.projection.shape == (2, 10, 0)


def test_a_projection_of_one_tensor():
    assert Projection.of(embedding=torch.zeros(1, 5, 4), view_ids=[1]).logits is None
    only_logits = Projection.of(logits=torch.zeros(2, 5, 7, dtype=torch.float64), view_ids=(3, 1))
    assert only_logits.embedding.shape == (2, 5, 0)
    assert only_logits.embedding.dtype == torch.float64
    assert only_logits.view_ids == (3, 1)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "not of nothing"),
        ({"logits": torch.zeros(5, 7)}, r"of logits \(V, B, K\) or of both, not of \(5, 7\)"),
        ({"logits": torch.zeros(2, 5, 7), "embedding": torch.zeros(2, 6, 4)}, r"not of \(2, 6, 4\) and \(2, 5, 7\)"),
        ({"logits": torch.zeros(2, 5, 7), "view_ids": [1]}, r"of 2 views has as many view ids, not \(1,\)"),
    ],
)
def test_a_projection_of_a_wrong_shape_is_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Projection.of(**given)
