"""Queue of negatives, as in MoCo."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from sslkit.clock import Clock
from sslkit.collapse.negative_queue_advice import describe_negatives, recommend_negatives
from sslkit.contracts import START, CollapseOperator
from sslkit.distributed import gather_over_processes
from sslkit.recommendation import Recommendation, RunContext
from sslkit.schedules import check_range
from sslkit.types import Projection, TargetKind, Targets, in_wider_dtype, unit_length


class NegativeQueue(CollapseOperator):
    """Teacher embeddings as targets, with a first-in-first-out queue of earlier ones as negatives.

    MoCo §3.2 (arXiv:1911.05722). The queue starts with random unit vectors from torch's global generator, so the loss
    of a healthy run rises at first, while real embeddings replace them. The negatives of a step are the queue before
    the embeddings of that step are written to it; otherwise each positive would also be a negative.

    In every step the embeddings of all teacher views and all processes, scaled to length 1, view by view and in batch
    order, replace the oldest ones. At the end of the queue, writing continues at its start, so any size is allowed;
    the published code requires a multiple of the batch size, for which both give the same. If a step has more
    embeddings than the queue holds, the last ones are kept. The queue is the same on every process.

    Args:
        embed_dim: D.
        size: Q, at least 1 (65536 in the paper). With a size near the number of images, an image's own earlier
            embeddings are among its negatives.

    Raises:
        ValueError: ``size`` is below 1.
    """

    reads: ClassVar[TargetKind] = "embedding"
    queue: Tensor
    pointer: Tensor

    def __init__(self, embed_dim: int, size: int = 65536) -> None:
        super().__init__()
        check_range("NegativeQueue", "size", size, "[1, inf)")
        check_range("NegativeQueue", "embed_dim", embed_dim, "[1, inf)")
        self.embed_dim = embed_dim
        self.register_buffer("queue", unit_length(torch.randn(size, embed_dim)))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.long))

    @property
    def yields(self) -> TargetKind:
        return "embedding"

    @property
    def gives_negatives(self) -> bool:
        return True

    def forward(self, teacher: Projection, clock: Clock = START) -> Targets:
        """Return the embeddings (T, B, D) as targets, with a copy of the queue as negatives."""
        # A copy, so that the targets stay as they are when ``update`` writes the queue in place.
        return Targets(teacher.embedding, "embedding", teacher.view_ids, negatives=self.queue.clone())

    @torch.no_grad()
    def update(self, teacher: Projection, clock: Clock = START) -> None:
        new = gather_over_processes(unit_length(teacher.embedding), dim=1).flatten(0, 1)
        size = len(self.queue)
        self.queue, new = in_wider_dtype(self.queue, new)
        # Only the last ones, where more come than fit: torch leaves open which of two values at one index is kept.
        first = max(0, len(new) - size)
        places = (self.pointer + torch.arange(first, len(new), device=new.device)) % size
        # Indices on the device instead of a slice, whose bounds would be read from the GPU in every step.
        self.queue[places] = new[first:]
        self.pointer.add_(len(new)).remainder_(size)

    def describe(self, context: RunContext) -> Iterator[tuple[str, str]]:
        return describe_negatives(len(self.queue), context)

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        return recommend_negatives(len(self.queue), context)
