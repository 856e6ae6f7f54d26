"""Sinkhorn-Knopp: soft assignments that use all prototypes equally."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sslkit.clock import Clock, Duration
from sslkit.collapse.partition_advice import balanced_together, is_too_few, too_few
from sslkit.collapse.queue_advice import describe_queue, queue_for, recommend_queue
from sslkit.collapse.view_queue import ViewQueue
from sslkit.contracts import START, CollapseOperator
from sslkit.distributed import max_over_processes, sum_over_processes
from sslkit.recommendation import Recommendation, RunContext
from sslkit.types import Projection, Targets, at_least_float32


@torch.no_grad()
def balance(logits: Tensor, epsilon: float, num_iters: int) -> Tensor:
    """Turn (T, B, K) logits into (T, B, K) probabilities such that each view uses all K prototypes equally.

    Alternately, each prototype's column is scaled to sum to 1 / K over the images of all processes, and each
    image's row to sum to 1 over prototypes; the last scaling is the images'. Rows sum to 1 exactly, columns
    approach B / K.

    Args:
        logits: raw scores, not divided by a temperature.
        epsilon: entropy weight, above 0; smaller is sharper.
        num_iters: rounds of the two scalings, at least 1.
    """
    scores = at_least_float32(logits) / epsilon
    # The first round in logarithms: exp of a raw score may overflow, or underflow for all of an image's prototypes.
    largest = max_over_processes(scores.amax(1, keepdim=True))
    used = sum_over_processes((scores - largest).exp().sum(1, keepdim=True))
    weights = (scores - largest - used.log()).softmax(2)
    for _ in range(num_iters - 1):
        # Prototypes first, images last, so that each image's row sums to 1 exactly.
        weights = weights / sum_over_processes(weights.sum(1, keepdim=True))
        weights = weights / weights.sum(2, keepdim=True)
    return weights


class SinkhornKnopp(CollapseOperator):
    """Sinkhorn-Knopp assignments, equal in size over prototypes. SwAV §3.1 (arXiv:2006.09882), DINO table 7 row 3.

    With a queue (SwAV §4.1), for batches too small to be balanced by themselves, the embeddings of earlier images are
    scored with the current prototypes and balanced together with the batch, whose rows alone are the targets. The
    queue is used once it is full, and as it was before this batch; it takes whole batches only.

    Args:
        epsilon: entropy weight, above 0; smaller is sharper (0.05 in the paper).
        num_iters: alternating scalings of prototypes and images, at least 1 (3 in the paper).
        queue_size: images a view in the queue, over all processes; 0 for none (3840 in the paper, batches of 256).
        embed_dim: D, needed with a queue.
        num_views: views that the teacher sees, each with a queue of its own.
        queue_start: when the queue begins to fill, such as ``15 epochs``.

    Raises:
        ValueError: epsilon, num_iters or queue_size out of range, or a queue without embed_dim.
        RecipeError: queue_start is no duration; later, a queue that holds no batch, or other teacher views than
            num_views.
    """

    def __init__(
        self,
        epsilon: float = 0.05,
        num_iters: int = 3,
        queue_size: int = 0,
        embed_dim: int | None = None,
        num_views: int = 2,
        queue_start: str = "15 epochs",
    ) -> None:
        super().__init__()
        if epsilon <= 0:
            raise ValueError(f"the epsilon of SinkhornKnopp is above 0, not {epsilon}")
        if num_iters < 1:
            raise ValueError(f"the num_iters of SinkhornKnopp is at least 1, not {num_iters}")
        if queue_size < 0:
            raise ValueError(f"the queue_size of SinkhornKnopp is not negative, as {queue_size} is")
        if queue_size and embed_dim is None:
            raise ValueError("the queue of SinkhornKnopp needs embed_dim, the width of the head's embedding")
        self.epsilon = epsilon
        self.num_iters = num_iters
        self.queue_start = Duration.parse(queue_start)
        self.embed_dim = embed_dim if queue_size else None
        self.queue = ViewQueue(num_views, queue_size, embed_dim) if queue_size and embed_dim is not None else None

    def forward(self, teacher: Projection, clock: Clock = START) -> Targets:
        """Return the assignments (T, B, K) of logits (T, B, K), balanced view by view."""
        assert teacher.logits is not None
        logits = at_least_float32(teacher.logits)
        queued = self._queued_logits(teacher, clock)
        if queued is not None:
            logits = torch.cat([queued, logits], 1)
        # The batch stands behind the queue; the rows of the queue are balanced, but are no targets.
        codes = balance(logits, self.epsilon, self.num_iters)[:, -teacher.logits.shape[1] :]
        return Targets(codes, "probabilities", teacher.view_ids)

    def _queued_logits(self, teacher: Projection, clock: Clock) -> Tensor | None:
        """Return the scores (T, rows, K) of this process's share of the queue, or None while it is not in use."""
        if self.queue is None:
            return None
        num_views, batch_size, _ = teacher.embedding.shape
        self.check(num_views, batch_size)
        if not self._has_started(clock) or not self.queue.is_full(batch_size):
            return None
        assert teacher.score is not None
        # Scored anew with the prototypes of this step, as in the published code: stored scores would be stale.
        return teacher.score(self.queue.share(batch_size).to(teacher.embedding.dtype))

    def update(self, teacher: Projection, clock: Clock = START) -> None:
        if self.queue is not None and self._has_started(clock):
            self.queue.push(teacher.embedding.detach())

    def check(self, num_views: int, batch_size: int) -> None:
        if self.queue is not None:
            self.queue.check(num_views, batch_size)

    def _has_started(self, clock: Clock) -> bool:
        return clock.step >= self.queue_start.steps(clock)

    def describe(self, context: RunContext) -> Iterator[tuple[str, str]]:
        yield from balanced_together(context.batch_size * (1 + self._queued_batches(context)), context)
        if self.queue is not None:
            yield from describe_queue(self._queued_batches(context), self.queue_start, context)

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        images = context.batch_size * (1 + self._queued_batches(context))
        if is_too_few(images, context):
            yield too_few(images, context, queue_for(context))
        if self.queue is not None:
            yield from recommend_queue(self.queue.rows.shape[1], self.queue_start, context)

    def _queued_batches(self, context: RunContext) -> int:
        return 0 if self.queue is None else self.queue.rows.shape[1] // context.batch_size
