"""Distributed evaluation, by a backbone that splits its batches over processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sslkit.contracts import Backbone
from sslkit.distributed import gather_over_processes, rank, take_from_main, world_size
from sslkit.snapshot import TensorSnapshot
from sslkit.types import Features


class SharedBackbone(Backbone):
    """A backbone that computes the features of a share of each batch in each process and gathers them.

    Evaluators then need no code for several processes: each runs in every process on the same images and returns the
    same metrics. Only ``forward`` is split; ``layers`` and ``attention`` are computed for all images in each process.

    Args:
        backbone: the network, with the same weights in every process.
        meet: called before each batch in every process, for example to agree on whether to stop.
    """

    def __init__(self, backbone: Backbone, meet: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.inner, self.meet = backbone, meet
        self.embed_dim = backbone.embed_dim

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Return the features of images (N, C, H, W); images and features are the same in every process."""
        self.meet()
        share = -(-len(images) // world_size())
        # Gathered tensors must have the same shape: processes with a short share repeat the last image, cut off below.
        mine = (torch.arange(share, device=images.device) + rank() * share).clamp_max(len(images) - 1)
        # A backbone that cannot hide patches need not take a mask.
        seen = self.inner(images[mine], *(() if mask is None else (mask[mine],)))
        everyone = [None if part is None else gather_over_processes(part)[: len(images)] for part in _parts(seen)]
        assert everyone[0] is not None
        return Features(everyone[0], everyone[1])

    def layers(self, images: Tensor, n: int) -> list[Features]:
        self.meet()
        return self.inner.layers(images, n)

    def attention(self, images: Tensor) -> Tensor:
        self.meet()
        return self.inner.attention(images)


@contextmanager
def shared(backbone: Backbone, meet: Callable[[], None]) -> Iterator[Backbone]:
    """Yield a backbone that splits its batches over processes; in a single process ``backbone`` itself.

    Batch-norm statistics may differ between processes. Inside the block all have those of the main process, which are
    the saved ones; afterwards each process has its own again.

    Args:
        backbone: the network, with the same parameters in every process.
        meet: as for `SharedBackbone`.
    """
    if world_size() == 1:
        yield backbone
        return
    kept = TensorSnapshot(backbone.buffers)
    try:
        for buffer in backbone.buffers():
            take_from_main(buffer)
        yield SharedBackbone(backbone, meet)
    finally:
        kept.restore()


def _parts(features: Features) -> tuple[Tensor, Tensor | None]:
    return features.cls, features.patches
