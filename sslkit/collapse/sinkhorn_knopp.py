"""Sinkhorn-Knopp: soft assignments of images to prototypes that use all prototypes equally."""

from collections.abc import Iterator

import torch
from torch import Tensor

from sslkit.clock import Clock, Duration
from sslkit.collapse.partition_advice import balanced_together, is_too_few, too_few, too_flat
from sslkit.collapse.queue_advice import describe_queue, queue_for, recommend_queue
from sslkit.collapse.view_queue import ViewQueue
from sslkit.contracts import START, CollapseOperator
from sslkit.distributed import max_over_processes, sum_over_processes
from sslkit.recommendation import Recommendation, RunContext
from sslkit.schedules import check_range
from sslkit.types import Projection, Targets, at_least_float32


@torch.no_grad()
def balance(logits: Tensor, epsilon: float, num_iters: int) -> Tensor:
    """Return probabilities (T, B, K) of logits (T, B, K) that use all K prototypes equally in each view.

    Alternately, each prototype's column is scaled to the same sum over the images of all processes, and each image's
    row to sum 1 over prototypes. Rows are scaled last, so they sum to 1 exactly, while columns approach B / K, where B
    counts the images of all processes.

    Args:
        logits: raw scores, not divided by a temperature.
        epsilon: weight of the entropy term, above 0; smaller values give sharper assignments.
        num_iters: rounds of the two scalings, at least 1.
    """
    scores = at_least_float32(logits) / epsilon
    # The first round in logarithms: exp of a raw score may overflow, or underflow for all prototypes of an image.
    # The largest score over all processes, so that each subtracts the same number before it adds up.
    largest = max_over_processes(scores.amax(1, keepdim=True))
    used = sum_over_processes((scores - largest).exp().sum(1, keepdim=True))
    weights = (scores - largest - used.log()).softmax(2)
    for _ in range(num_iters - 1):
        # Prototypes first, images last, so that each image's row sums to 1 exactly.
        weights = weights / sum_over_processes(weights.sum(1, keepdim=True))
        weights = weights / weights.sum(2, keepdim=True)
    return weights


class SinkhornKnopp(CollapseOperator):
    """Sinkhorn-Knopp assignments that use all prototypes equally. SwAV §3.1 (arXiv:2006.09882), DINO table 7 row 3.

    For batches too small to be balanced alone, a queue (SwAV §4.1) adds embeddings of earlier images: they are scored
    with the current prototypes and balanced together with the batch, but only the rows of the batch are targets. The
    queue is used once it is full, in its state before the current batch, and holds whole batches only.

    Args:
        epsilon: weight of the entropy term, above 0; smaller values give sharper assignments (0.05 in the paper).
        num_iters: alternating scalings of prototypes and images, at least 1 (3 in the paper).
        queue_size: images per view in the queue, over all processes; 0 for no queue (3840 in the paper for batches
            of 256).
        embed_dim: D, required with a queue.
        num_views: views that the teacher sees; each has its own queue.
        queue_start: when the queue begins to fill, such as ``15 epochs``.

    Raises:
        ValueError: ``epsilon``, ``num_iters`` or ``queue_size`` is out of range, or ``embed_dim`` is missing with a
            queue.
        RecipeError: ``queue_start`` is not a duration. `check` and ``forward`` raise it for a queue smaller than a
            batch, and for a number of teacher views other than ``num_views``.
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
        check_range("SinkhornKnopp", "epsilon", epsilon, "(0, inf)")
        check_range("SinkhornKnopp", "num_iters", num_iters, "[1, 1000]")
        check_range("SinkhornKnopp", "queue_size", queue_size, "[0, inf)")
        if queue_size and embed_dim is None:
            raise ValueError("the queue of SinkhornKnopp needs embed_dim, the width of the head's embedding")
        self.epsilon = epsilon
        self.num_iters = num_iters
        self.queue_start = Duration.parse(queue_start)
        self.embed_dim = embed_dim if queue_size else None
        self.queue = ViewQueue(num_views, queue_size, embed_dim) if queue_size and embed_dim is not None else None

    def forward(self, teacher: Projection, clock: Clock = START) -> Targets:
        """Return the assignments (T, B, K) of logits (T, B, K), each view balanced separately."""
        assert teacher.logits is not None
        logits = at_least_float32(teacher.logits)
        queued = self._queued_logits(teacher, clock)
        if queued is not None:
            logits = torch.cat([queued, logits], 1)
        # The rows of the queue come first and take part in the balance; only the rows of the batch are targets.
        codes = balance(logits, self.epsilon, self.num_iters)[:, -teacher.logits.shape[1] :]
        return Targets(codes, "probabilities", teacher.view_ids)

    def _queued_logits(self, teacher: Projection, clock: Clock) -> Tensor | None:
        """Return logits (T, rows, K) of this process's share of the queue, or None while the queue is not in use."""
        if self.queue is None:
            return None
        num_views, batch_size, _ = teacher.embedding.shape
        self.check(num_views, batch_size)
        if not self._has_started(clock) or not self.queue.is_full(batch_size):
            return None
        assert teacher.score is not None
        # Scored again with the prototypes of this step, as in the published code: stored scores would be out of date.
        return teacher.score(self.queue.share(batch_size).to(teacher.embedding.dtype))

    def update(self, teacher: Projection, clock: Clock = START) -> None:
        if self.queue is not None and self._has_started(clock):
            # Detached, since a copy with a gradient would attach the queue to the graph of every earlier step.
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
        yield from too_flat("epsilon", self.epsilon)
        if self.queue is not None:
            yield from recommend_queue(self.queue.rows.shape[1], self.queue_start, context)

    def _queued_batches(self, context: RunContext) -> int:
        return 0 if self.queue is None else self.queue.rows.shape[1] // context.batch_size
