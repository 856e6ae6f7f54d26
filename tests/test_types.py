import pytest
import torch

from sslkit.types import Projection, Targets, ViewGroup, Views, at_least_float32, matching_pairs


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
        ((0,), (0,), []),
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
