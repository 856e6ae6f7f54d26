"""Split the batches of an evaluation over processes, inside the backbone."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from sslkit.contracts import Backbone
from sslkit.distributed import gather_over_processes, rank, take_from_main, world_size
from sslkit.snapshot import TensorSnapshot
from sslkit.types import Features


class SharedBackbone(Backbone):
    """A backbone that runs each process's share of a batch and gathers the features of all.

    So evaluators know nothing of processes: each runs in all of them on the same images, to the same numbers. Layers
    and attention are not shared: each process computes them for all images.

    Args:
        backbone: the network, the same in every process.
        meet: called before each batch, for what the processes have to agree on.
    """

    def __init__(self, backbone: Backbone, meet: Callable[[], None] = lambda: None) -> None:
        super().__init__()
        self.inner, self.meet = backbone, meet
        self.embed_dim = backbone.embed_dim

    def forward(self, images: Tensor, mask: Tensor | None = None) -> Features:
        """Return the features of images (N, C, H, W), the same on every process."""
        self.meet()
        share = -(-len(images) // world_size())
        # Shapes have to agree, so that the last processes repeat an image where their share is short.
        mine = (torch.arange(share, device=images.device) + rank() * share).clamp_max(len(images) - 1)
        seen = self.inner(images[mine], None if mask is None else mask[mine])
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
    """Share a network between the evaluators of all processes; in a single process it is the network itself.

    Each process has batch statistics of its own. An evaluation is of the main one's, which are those that are saved;
    afterwards each has its own again.

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
