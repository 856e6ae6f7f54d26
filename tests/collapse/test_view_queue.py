"""The queue of each view, newest batch first."""

import torch

from sslkit.collapse import SinkhornKnopp, view_queue
from sslkit.types import Projection

K, D = 5, 4


def teacher(embedding, prototypes):
    score = lambda rows: rows @ prototypes.T  # noqa: E731
    return Projection(embedding, embedding, embedding, score(embedding), tuple(range(len(embedding))), score)


def test_newest_rows_first_by_hand():
    operator = SinkhornKnopp(queue_size=4, embed_dim=1, num_views=1, queue_start="0 steps")
    for first in (1.0, 3.0, 5.0):
        operator.update(teacher(torch.tensor([[[first], [first + 1]]]), torch.ones(2, 1)))
    assert operator.queue.rows.flatten().tolist() == [5, 6, 3, 4]


def test_full_for_one_batch_size_is_not_full_for_another():
    queue = view_queue.ViewQueue(1, 10, D)
    for _ in range(2):
        queue.push(torch.ones(1, 4, D))
    assert [queue.is_full(size) for size in (4, 5, 4)] == [True, False, True]
    assert list(queue.state_dict()) == ["rows"]
