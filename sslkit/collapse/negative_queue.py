"""Embeddings of earlier images as negatives."""

from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from sslkit.clock import Clock
from sslkit.contracts import START, CollapseOperator
from sslkit.distributed import gather_over_processes
from sslkit.recommendation import Recommendation, RunContext
from sslkit.types import Projection, TargetKind, Targets, in_wider_dtype, unit_length

PUBLISHED_SHARE, LARGEST_SHARE = 0.05, 0.1
"""Images in the queue over images: MoCo's on ImageNet, and a little more than in its CIFAR-10 demo (8 %)."""


class NegativeQueue(CollapseOperator):
    """The teacher's embeddings, and those of the steps before as negatives. MoCo §3.2 (arXiv:1911.05722).

    The queue starts with random unit vectors from torch's generator, so the loss of a healthy run rises at first, as
    real embeddings replace them. The negatives of a step are the queue before the step's own embeddings enter, which
    would else be positive and negative at once.

    Every step the embeddings of all teacher views and all processes, scaled to length 1, view by view and in the order
    of the batch, replace the oldest ones. Where they reach the end of the queue they go on at its start, so any size
    will do; the reference asks for a multiple of the batch, for which both are the same. Of more embeddings than the
    queue holds, the last ones stay. The queue is the same on every process.

    Args:
        embed_dim: D.
        size: Q, at least 1 (65536 in the paper). Near the number of images, images meet themselves as negatives.

    Raises:
        ValueError: a size below 1.
    """

    reads: ClassVar[TargetKind] = "embedding"
    queue: Tensor
    pointer: Tensor

    def __init__(self, embed_dim: int, size: int = 65536) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"the size of NegativeQueue is at least 1, not {size}")
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
        """Hand on (T, B, D) embeddings with a copy of the queue."""
        return Targets(teacher.embedding, "embedding", teacher.view_ids, negatives=self.queue.clone())

    @torch.no_grad()
    def update(self, teacher: Projection, clock: Clock = START) -> None:
        new = gather_over_processes(unit_length(teacher.embedding), dim=1).flatten(0, 1)
        size = len(self.queue)
        self.queue, new = in_wider_dtype(self.queue, new)
        first = max(0, len(new) - size)
        places = (self.pointer + torch.arange(first, len(new), device=new.device)) % size
        self.queue[places] = new[first:]
        self.pointer.add_(len(new)).remainder_(size)

    def describe(self, context: RunContext) -> Iterator[tuple[str, str]]:
        share, steps = self._share(context), len(self.queue) / context.batch_size / context.teacher_views
        yield "negative queue", f"{len(self.queue):,} embeddings, of {share:.1%} of the images"
        yield "negatives stay", context.span(steps)

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        size, share, new = len(self.queue), self._share(context), context.batch_size * context.teacher_views
        fitting = new * max(1, int(PUBLISHED_SHARE * context.num_images * context.teacher_views / new))
        changes = {"size": fitting} if fitting < size else {}
        if share >= 1:
            yield Recommendation(
                f"{size:,} negatives hold all {context.num_images:,} images, so that each meets itself among them",
                "moco#146",
                changes,
            )
        elif share > LARGEST_SHARE and changes:
            yield Recommendation(
                f"the negatives are {share:.0%} of the images, which will often meet themselves; MoCo's are 5 %",
                "MoCo: 65536 of 1.28 M; 4096 of 50000 in its CIFAR-10 demo",
                changes,
                is_warning=False,
            )

    def _share(self, context: RunContext) -> float:
        """Return the images in the queue over all images."""
        return len(self.queue) / context.teacher_views / context.num_images
