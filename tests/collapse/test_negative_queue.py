import pytest
import torch

from sslkit.collapse import NegativeQueue, negative_queue
from sslkit.types import Projection


def teacher(embedding):
    return Projection(embedding, embedding, embedding, None, tuple(range(len(embedding))))


def slow_enqueue(queue, pointer, embeddings):
    """One row at a time: view by view, image by image."""
    queue = list(queue)
    for view in embeddings:
        for row in view:
            queue[pointer] = row / row.square().sum().sqrt()
            pointer = (pointer + 1) % len(queue)
    return queue, pointer


@pytest.mark.parametrize(
    ("views", "batch", "size"), [(1, 4, 12), (2, 3, 7), (2, 5, 10), (1, 5, 3), (2, 3, 1), (1, 1, 4)]
)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-14), (torch.float32, 1e-6)])
def test_the_oldest_make_room_for_the_newest(views, batch, size, dtype, tolerance):
    operator = NegativeQueue(4, size)
    queue, pointer = list(operator.queue.to(dtype)), 0
    for _ in range(7):
        answers = teacher(torch.randn(views, batch, 4, dtype=dtype))
        targets = operator(answers)
        assert targets.kind == operator.yields == operator.reads == "embedding"
        assert targets.view_ids == answers.view_ids
        assert torch.equal(targets.values, answers.embedding)
        torch.testing.assert_close(targets.negatives.to(dtype), torch.stack(queue), rtol=tolerance, atol=0)
        operator.update(answers)
        queue, pointer = slow_enqueue(queue, pointer, answers.embedding)
        torch.testing.assert_close(operator.queue, torch.stack(queue), rtol=tolerance, atol=0)
        assert int(operator.pointer) == pointer


def test_by_hand():
    operator = NegativeQueue(2, 3)
    operator.queue.copy_(torch.tensor([[7.0, 0.0], [8.0, 0.0], [9.0, 0.0]]))
    expected = [[[0.6, 0.8], [-1, 0], [9, 0]], [[0.8, -0.6], [-1, 0], [0, 1]], [[0.8, -0.6], [1, 0], [0, -1]]]
    batches = [[[3.0, 4.0], [-2.0, 0.0]], [[0.0, 5.0], [4.0, -3.0]], [[1.0, 0.0], [0.0, -9.0]]]
    for batch, rows in zip(batches, expected, strict=True):
        operator.update(teacher(torch.tensor([batch])))
        torch.testing.assert_close(operator.queue, torch.tensor(rows))
    assert int(operator.pointer) == 0


def test_it_starts_with_random_unit_vectors_of_torchs_generator():
    queues = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        queues.append(NegativeQueue(16, 500).queue)
    torch.testing.assert_close(queues[0].norm(dim=1), torch.ones(500))
    assert queues[0].mean().abs() < 0.01
    assert torch.equal(queues[0], queues[1])
    assert not torch.equal(queues[0], queues[2])


def test_the_negatives_of_a_step_are_the_queue_before_it_and_stay():
    operator, answers = NegativeQueue(3, 4), teacher(torch.randn(1, 2, 3))
    before = operator.queue.clone()
    targets = operator(answers)
    operator.update(answers)
    assert torch.equal(targets.negatives, before)
    assert not torch.equal(operator(answers).negatives, before)


def test_queue_and_pointer_are_saved_and_loaded():
    operator, answers = NegativeQueue(3, 5), teacher(torch.randn(1, 3, 3))
    operator.update(answers)
    other = NegativeQueue(3, 5)
    other.load_state_dict(operator.state_dict())
    for queue in (operator, other):
        queue.update(answers)
    assert set(other.state_dict()) == {"queue", "pointer"}
    assert torch.equal(other.queue, operator.queue)
    assert int(other.pointer) == int(operator.pointer) == 1


def test_every_process_holds_the_whole_queue(monkeypatch):
    embedding = torch.nn.functional.normalize(torch.randn(2, 4, 3), dim=-1)
    whole, half = NegativeQueue(3, 9), NegativeQueue(3, 9)
    half.load_state_dict(whole.state_dict())
    whole.update(teacher(embedding))
    monkeypatch.setattr(
        negative_queue, "gather_over_processes", lambda rows, dim: torch.cat([rows, embedding[:, 2:]], 1)
    )
    half.update(teacher(embedding[:, :2]))
    torch.testing.assert_close(half.queue, whole.queue)
    assert int(half.pointer) == int(whole.pointer)


def test_no_gradient_enters_the_queue():
    operator = NegativeQueue(3, 4)
    operator.update(teacher(torch.randn(1, 2, 3, requires_grad=True)))
    assert not operator.queue.requires_grad


def test_what_it_gives():
    assert NegativeQueue(3, 4).gives_negatives
    with pytest.raises(ValueError, match=r"size of NegativeQueue lies in \[1, inf\), not 0"):
        NegativeQueue(3, 0)
