import math

import pytest
import torch
from torch.nn import functional as F

from sslkit.errors import RecipeError
from sslkit.losses import InfoNCE, info_nce
from sslkit.types import Projection, Targets


def student(embedding, ids=(0, 1)):
    return Projection(embedding, embedding, embedding, None, tuple(ids))


def slow_loss(mine, student_ids, theirs, teacher_ids, queue, temperature, kind):
    """Every pair of different views, every image, every negative."""
    terms = []
    for t, teacher_id in enumerate(teacher_ids):
        for s, student_id in enumerate(student_ids):
            if teacher_id == student_id:
                continue
            for b in range(mine.shape[1]):
                negatives = [row for row in queue] if kind != "batch" else []
                if kind != "targets":
                    negatives += [theirs[t, other] for other in range(mine.shape[1]) if other != b]
                cosines = [torch.cosine_similarity(mine[s, b], key, dim=0) for key in [theirs[t, b], *negatives]]
                weights = [torch.exp(cosine / temperature) for cosine in cosines]
                terms.append(-torch.log(weights[0] / sum(weights)))
    return sum(terms) / len(terms)


@pytest.mark.parametrize("kind", ["targets", "batch", "both"])
@pytest.mark.parametrize(
    ("teacher_ids", "student_ids", "batch", "width", "queue_size"),
    [((1,), (0,), 3, 5, 6), ((0, 1), (0, 1), 4, 3, 1), ((0, 1), (0, 1, 2), 2, 7, 3)],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-6)])
def test_loss_and_gradient(teacher_ids, student_ids, batch, width, queue_size, kind, dtype, tolerance):
    mine = torch.randn(len(student_ids), batch, width, dtype=dtype, requires_grad=True)
    slow = mine.detach().double().requires_grad_()
    theirs = torch.randn(len(teacher_ids), batch, width, dtype=dtype)
    queue = F.normalize(torch.randn(queue_size, width, dtype=dtype), dim=-1)
    loss = InfoNCE(0.3, kind)(student(mine, student_ids), Targets(theirs, "embedding", teacher_ids, queue))
    expected = slow_loss(slow, student_ids, theirs.double(), teacher_ids, queue.double(), 0.3, kind)
    loss.backward()
    expected.backward()
    assert loss.shape == ()
    assert loss.dtype == dtype
    assert abs(loss.item() - expected.item()) <= tolerance * abs(expected.item())
    assert (mine.grad.double() - slow.grad).norm() <= tolerance * slow.grad.norm()


def test_by_hand():
    # Cosine 1 with the key; 0 and -1 with the queue; temperature 1 / ln 2: weights 2, 1 and 1/2.
    mine = torch.tensor([[[2.0, 0.0]]], dtype=torch.float64)
    key = torch.tensor([[[3.0, 0.0]]], dtype=torch.float64)
    queue = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    loss = InfoNCE(1 / math.log(2))(student(mine, (0,)), Targets(key, "embedding", (1,), queue))
    assert loss.item() == pytest.approx(math.log(3.5 / 2), rel=1e-14)
    # Two images at a right angle, each other's only negative: weights 2 and 1.
    mine = torch.eye(2, dtype=torch.float64)[None]
    loss = InfoNCE(1 / math.log(2), "batch")(student(mine, (0,)), Targets(mine, "embedding", (1,)))
    assert loss.item() == pytest.approx(math.log(1.5), rel=1e-14)


def test_equal_answers_cost_the_log_of_the_candidates():
    same = torch.ones(2, 5, 3, dtype=torch.float64)
    targets = Targets(same, "embedding", (0, 1), F.normalize(same[0, :1], dim=-1).expand(7, 3))
    for kind, candidates in (("targets", 8), ("batch", 5), ("both", 12)):
        assert InfoNCE(0.1, kind)(student(same), targets).item() == pytest.approx(math.log(candidates), rel=1e-14)


def test_the_first_images_number_is_that_of_its_process(monkeypatch):
    """The second of two processes finds its own images behind those of the first."""
    mine, theirs = torch.randn(2, 4, 3, dtype=torch.float64), torch.randn(2, 4, 3, dtype=torch.float64)
    whole = InfoNCE(0.2, "batch")(student(mine), Targets(theirs, "embedding", (0, 1)))
    everyone = F.normalize(theirs, dim=-1)
    monkeypatch.setattr(info_nce, "gather_over_processes", lambda rows, dim: everyone)
    halves = []
    for number, part in enumerate((slice(0, 2), slice(2, 4))):
        monkeypatch.setattr(info_nce, "rank", lambda number=number: number)
        halves.append(InfoNCE(0.2, "batch")(student(mine[:, part]), Targets(theirs[:, part], "embedding", (0, 1))))
    torch.testing.assert_close(sum(halves) / 2, whole, rtol=1e-13, atol=0)


@pytest.mark.parametrize("kind", ["targets", "batch", "both"])
def test_who_moves_whom(kind):
    """One image's gradient never depends on other student views; with in-batch negatives it does on other targets."""
    mine, theirs, queue = torch.randn(1, 4, 3), torch.randn(1, 4, 3), torch.randn(5, 3)

    def gradient(mine, theirs):
        mine = mine.clone().requires_grad_()
        InfoNCE(0.2, kind)(student(mine, (0,)), Targets(theirs, "embedding", (1,), queue)).backward()
        return mine.grad[0, 0]

    other_student, other_targets = mine.clone(), theirs.clone()
    other_student[0, 1:] += 1
    other_targets[0, 1:] += 1
    before = gradient(mine, theirs)
    torch.testing.assert_close(gradient(other_student, theirs), before)
    assert torch.allclose(gradient(mine, other_targets), before) == (kind == "targets")
    assert InfoNCE(0.2, kind).couples_batch == (kind != "targets")
    assert InfoNCE(0.2, kind).needs_negatives == (kind != "batch")


def test_a_single_image_without_negatives_has_nothing_to_learn():
    mine = torch.randn(2, 1, 3, requires_grad=True)
    loss = InfoNCE(0.2, "batch")(student(mine), Targets(torch.randn(2, 1, 3), "embedding", (0, 1)))
    loss.backward()
    assert loss.item() == 0
    assert not mine.grad.any()


def test_half_precision_is_computed_in_float32():
    mine, theirs, queue = torch.randn(2, 3, 4).bfloat16(), torch.randn(2, 3, 4).bfloat16(), torch.randn(5, 4)
    loss = InfoNCE(0.2, "both")(student(mine), Targets(theirs, "embedding", (0, 1), queue))
    whole = InfoNCE(0.2, "both")(student(mine.float()), Targets(theirs.float(), "embedding", (0, 1), queue))
    assert loss.dtype == torch.float32
    assert loss == whole


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match=r"temperature of InfoNCE lies in \(0, inf\), not 0"):
        InfoNCE(0)
    with pytest.raises(RecipeError, match="negatives is one of targets, batch, both, not 'queue'"):
        InfoNCE(negatives="queue")
    assert InfoNCE.accepts == {"embedding"}
    assert not InfoNCE().state_dict()


@pytest.mark.parametrize("kind", ["targets", "batch", "both"])
def test_chance_is_the_loss_of_a_student_to_which_all_are_equally_far(kind):
    """The student's embeddings are at right angles to all others."""
    theirs, queue = torch.randn(2, 5, 4, dtype=torch.float64), torch.randn(9, 4, dtype=torch.float64)
    theirs[..., 0], queue[..., 0] = 0, 0
    mine = torch.zeros(2, 5, 4, dtype=torch.float64)
    mine[..., 0] = 1
    targets = Targets(F.normalize(theirs, dim=-1), "embedding", (0, 1), negatives=F.normalize(queue, dim=-1))
    loss = InfoNCE(0.1, kind)
    assert loss.chance(student(mine), targets) == pytest.approx(loss(student(mine), targets).item(), rel=1e-12)
