"""What layers draw in a step: by an image's place in the batch of all processes, where they allow it."""

import random

import torch
from timm.layers import DropPath
from timm.layers.drop import drop_path
from torch import Tensor, nn

from sslkit.distributed import rank, world_size
from sslkit.method.branch import drop_rates


class BatchPositions:
    """The images that a network sees now, shared by its layers.

    Attributes:
        positions: (B,) places in the batch of all processes, on the device of the network; empty outside steps.
        total: images in that batch.
    """

    def __init__(self) -> None:
        self.positions = torch.empty(0, dtype=torch.long)
        self.total = 0


class BatchInvariantDropPath(DropPath):
    """Stochastic depth (arXiv:1603.09382) drawn for the whole batch, of which the images at hand take their part.

        mask = Bernoulli(1 - drop_prob) of shape (V, images of all processes), then the columns of the images at hand

    So one seed in all processes and micro-batches makes a mask that does not depend on how the batch is shared out.

    Args:
        rates: the layer that it replaces.
        batch_positions: of the network.
    """

    def __init__(self, rates: DropPath, batch_positions: BatchPositions) -> None:
        super().__init__(rates.drop_prob, rates.scale_by_keep)
        self.batch_positions = batch_positions

    def forward(self, x: Tensor) -> Tensor:
        """Drop (V B, ...), images of a view next to one another; anything else as timm does."""
        positions, total = self.batch_positions.positions, self.batch_positions.total
        if not self.training or not self.drop_prob or not len(positions) or len(x) % len(positions):
            return super().forward(x)
        num_views = len(x) // len(positions)
        # Drawn for all images everywhere, although few are needed here: the draw then does not depend on the split.
        whole: Tensor = drop_path(x.new_ones(num_views * total), self.drop_prob, True, self.scale_by_keep)
        mask = whole.view(num_views, total)[:, positions]
        return x * mask.reshape(-1, *(1,) * (x.ndim - 1))


class DropPathSeeding:
    """Seeds the random layers of a network, and gives them the batch positions of its images.

    timm's drop path, if nothing else draws, depends on (seed, step, place in the batch of all processes) alone. A
    network with dropout draws from (seed, step, first image of the micro-batch) instead: its masks would have to be
    drawn for every unit of every image everywhere.

    Args:
        network: drop paths are replaced in it; parameters, buffers and their names stay.
    """

    def __init__(self, network: nn.Module) -> None:
        self.batch_positions = BatchPositions()
        self.is_batch_invariant = all(
            isinstance(layer, DropPath) for layer, rate in drop_rates(network) if getattr(layer, rate)
        )
        self._moment: tuple[int, int] | None = None
        if self.is_batch_invariant:
            for parent in list(network.modules()):
                for name, child in parent.named_children():
                    if isinstance(child, DropPath):
                        setattr(parent, name, BatchInvariantDropPath(child, self.batch_positions))

    def start_step(self, seed: int, step: int) -> None:
        """Take in the run's seed and the step, counted from 0."""
        self._moment = (seed, step)

    def set_batch_slice(self, start: int, stop: int, batch_size: int, device: torch.device) -> None:
        """Have the next forward draw for images start .. stop - 1 of this process's ``batch_size``."""
        first = rank() * batch_size + start
        if self._moment is not None:
            seed_step(*self._moment, 0 if self.is_batch_invariant else first)
        self.batch_positions.positions = torch.arange(first, first + stop - start, device=device)
        self.batch_positions.total = world_size() * batch_size


def seed_step(seed: int, step: int, place: int) -> None:
    """Seed what layers draw (drop path, dropout), so that a resumed run draws the same.

    Args:
        seed: the run's.
        step: counted from 0.
        place: another one, other draws.
    """
    torch.manual_seed(random.Random(f"{seed}/{step}/{place}").getrandbits(63))
