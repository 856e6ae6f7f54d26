import copy

import pytest
import torch

from sslkit.clock import Clock
from sslkit.collapse import SinkhornKnopp, view_queue
from sslkit.collapse.sinkhorn_knopp import balance
from sslkit.errors import RecipeError
from sslkit.types import Projection

K, D = 5, 4


def teacher(embedding, prototypes):
    score = lambda rows: rows @ prototypes.T  # noqa: E731
    return Projection(embedding, embedding, embedding, score(embedding), tuple(range(len(embedding))), score)


def unit(*shape, dtype=torch.float64):
    return torch.nn.functional.normalize(torch.randn(*shape, dtype=dtype), dim=-1)


def slow_sinkhorn(scores, epsilon, num_iters):
    """The published algorithm on rows of images: total 1, prototypes 1 / K, images 1 / B, times B."""
    weights = torch.exp(torch.stack(scores).double() / epsilon)
    weights = weights / weights.sum()
    for _ in range(num_iters):
        for k in range(weights.shape[1]):
            weights[:, k] = weights[:, k] / weights[:, k].sum() / weights.shape[1]
        for b in range(len(weights)):
            weights[b] = weights[b] / weights[b].sum() / len(weights)
    return weights * len(weights)


@pytest.mark.parametrize(("size", "start"), [(6, "0 steps"), (8, "2 steps"), (3, "1 epochs"), (13, "0.5 epochs")])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 2e-6)])
def test_codes_over_a_run(size, start, dtype, tolerance):
    """Batches of 3, epochs of 4 steps: 6 -> 2 batches, 8 -> 2, 3 -> 1, 13 -> 4; used from the step after it is full."""
    batch, first = 3, {"0 steps": 0, "2 steps": 2, "1 epochs": 4, "0.5 epochs": 2}[start]
    room = size // batch
    operator = SinkhornKnopp(queue_size=size, embed_dim=D, queue_start=start)
    queues = [[], []]
    used = []
    for step in range(9):
        clock, prototypes = Clock(step, 9, 4), unit(K, D, dtype=dtype)
        answers = teacher(unit(2, batch, D, dtype=dtype), prototypes)
        targets = operator(answers, clock)
        assert torch.equal(operator(answers, clock).values, targets.values)
        operator.update(answers, clock)
        used.append(len(queues[0]) == room * batch)
        for view, rows in enumerate(queues):
            seen = [*(rows if used[-1] else []), *answers.embedding[view]]
            expected = slow_sinkhorn([row @ prototypes.T for row in seen], 0.05, 3)[-batch:]
            assert (targets.values[view].double() - expected).norm() <= tolerance * expected.norm()
            if step >= first:
                rows[:] = [*answers.embedding[view], *rows][: room * batch]
        assert targets.values.dtype == dtype
        assert targets.values.shape == (2, batch, K)
    assert used.index(True) == first + room


def test_the_queue_is_scored_with_the_prototypes_of_now():
    operator = SinkhornKnopp(queue_size=3, embed_dim=D, queue_start="0 steps")
    old, new = unit(2, 3, D), unit(2, 3, D)
    operator.update(teacher(old, unit(K, D)))
    prototypes = unit(K, D)
    expected = balance(torch.cat([old, new], 1) @ prototypes.T, 0.05, 3)[:, 3:]
    torch.testing.assert_close(operator(teacher(new, prototypes)).values, expected, rtol=1e-12, atol=0)


def test_a_queue_that_is_not_full_changes_nothing():
    operator, plain = SinkhornKnopp(queue_size=6, embed_dim=D, queue_start="0 steps"), SinkhornKnopp()
    prototypes = unit(K, D)
    operator.update(teacher(unit(2, 3, D), prototypes))
    answers = teacher(unit(2, 3, D), prototypes)
    assert torch.equal(operator(answers).values, plain(answers).values)
    operator.update(answers)
    assert not torch.allclose(operator(answers).values, plain(answers).values)


def test_the_queue_exists_before_it_starts_so_that_a_checkpoint_fits():
    clock = Clock(4, 9, 4)
    operator, resumed = (SinkhornKnopp(queue_size=3, embed_dim=D, queue_start="1 epochs").double() for _ in range(2))
    assert {name: tuple(rows.shape) for name, rows in operator.state_dict().items()} == {"queue.rows": (2, 3, D)}
    prototypes = unit(K, D)
    operator.update(teacher(unit(2, 3, D), prototypes), clock)
    resumed.load_state_dict(operator.state_dict())
    answers = teacher(unit(2, 3, D), prototypes)
    assert torch.equal(resumed(answers, clock).values, operator(answers, clock).values)
    assert not torch.equal(resumed(answers, clock).values, SinkhornKnopp()(answers).values)


def test_the_device_is_asked_until_the_queue_is_full_and_again_after_another_state_was_loaded(monkeypatch):
    queue = view_queue.ViewQueue(2, 7, D)
    empty, asked, ask = copy.deepcopy(queue).state_dict(), [], torch.Tensor.__bool__
    monkeypatch.setattr(torch.Tensor, "__bool__", lambda tensor: asked.append(tensor) or ask(tensor))
    answers = []
    for _ in range(4):
        answers.append((queue.is_full(3), len(asked)))
        queue.push(torch.ones(2, 3, D))
    assert answers == [(False, 1), (False, 2), (True, 3), (True, 3)]
    assert copy.deepcopy(queue).is_full(3)
    assert len(asked) == 3
    queue.load_state_dict(empty)
    assert not queue.is_full(3)


def test_each_process_scores_what_it_put_in(monkeypatch):
    """Shares of 2 processes, and the whole: newest batch first, each process its own half of every batch."""
    operator = SinkhornKnopp(queue_size=9, embed_dim=1, num_views=1, queue_start="0 steps")
    for first in (1.0, 5.0):
        operator.update(teacher(torch.arange(first, first + 4).view(1, 4, 1), torch.ones(2, 1)))
    assert operator.queue.share(4).flatten().tolist() == [5, 6, 7, 8, 1, 2, 3, 4]
    monkeypatch.setattr(view_queue, "world_size", lambda: 2)
    shares = []
    for number in (0, 1):
        monkeypatch.setattr(view_queue, "rank", lambda number=number: number)
        shares.append(operator.queue.share(2).flatten().tolist())
    assert shares == [[5, 6, 1, 2], [7, 8, 3, 4]]
    with pytest.raises(RecipeError, match="queue_size of 9 is less than a batch of 10"):
        operator.queue.check(1, 5)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match=r"queue_size of SinkhornKnopp lies in \[0, inf\), not -1"):
        SinkhornKnopp(queue_size=-1)
    with pytest.raises(ValueError, match="queue of SinkhornKnopp needs embed_dim"):
        SinkhornKnopp(queue_size=4)
    with pytest.raises(RecipeError, match="duration is written like"):
        SinkhornKnopp(queue_size=4, embed_dim=D, queue_start="soon")
    operator = SinkhornKnopp(queue_size=4, embed_dim=D)
    with pytest.raises(RecipeError, match=r"2 teacher views, but the teacher sees 3. Add\n  .*num_views 3"):
        operator(teacher(unit(3, 4, D), unit(K, D)))
    with pytest.raises(RecipeError, match="queue_size of 4 is less than a batch of 5"):
        operator(teacher(unit(2, 5, D), unit(K, D)))
    assert not SinkhornKnopp(embed_dim=D).state_dict()
