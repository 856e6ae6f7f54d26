"""Queue of earlier embeddings for each teacher view, as in SwAV."""

import torch
from torch import Tensor, nn

from sslkit.distributed import gather_over_processes, rank, world_size
from sslkit.errors import RecipeError
from sslkit.types import in_wider_dtype


class ViewQueue(nn.Module):
    """First-in-first-out queue of embeddings for each teacher view, newest batch first.

    SwAV §4.1 (arXiv:2006.09882). It holds whole batches of all processes; a rest of ``size`` stays unused, as in the
    published code. Every process holds the whole queue, so that a checkpoint contains it; each scores only its share,
    the images that it added.

    Args:
        num_views: T.
        size: Q, images per view over all processes.
        embed_dim: D.
    """

    rows: Tensor

    def __init__(self, num_views: int, size: int, embed_dim: int) -> None:
        super().__init__()
        # Created before the queue is in use, so that all checkpoints of a run hold tensors of the same names.
        self.register_buffer("rows", torch.zeros(num_views, size, embed_dim))
        self._known_full_for: int | None = None
        self.register_load_state_dict_post_hook(_forget)

    def check(self, num_views: int, batch_size: int) -> None:
        """Raise an error if the numbers of views and images do not fit this queue.

        Raises:
            RecipeError: the teacher has another number of views, or the queue is smaller than one batch.
        """
        views, size, _ = self.rows.shape
        if num_views != views:
            raise RecipeError(
                f"method.collapse: the queue is for {views} teacher views, but the teacher sees {num_views}. Add\n"
                f"  --method.collapse.num_views {num_views}"
            )
        if size < batch_size * world_size():
            raise RecipeError(
                f"method.collapse: a queue_size of {size} is less than a batch of {batch_size * world_size()}. Add one "
                f"of\n  --method.collapse.queue_size {10 * batch_size * world_size()}\n  --method.collapse.queue_size 0"
            )

    def is_full(self, batch_size: int) -> bool:
        """Whether the last row of every view is in use, for batches (T, B, D) of B images in this process.

        A full queue stays full, so its rows are read from the device only until then, not in every step.
        """
        if self._known_full_for != batch_size:
            # An unused row is exactly 0, which an embedding of length 1 cannot be.
            last = self._batches(batch_size)[:, -1, -1, -1]
            self._known_full_for = batch_size if last.any(-1).all() else None
        return self._known_full_for is not None

    def share(self, batch_size: int) -> Tensor:
        """Return this process's rows (T, Q / processes, D), newest batch first."""
        return self._batches(batch_size)[:, :, rank()].flatten(1, 2)

    def push(self, embeddings: Tensor) -> None:
        """Add the batch (T, B, D) of every process at the front and drop the oldest rows."""
        self.rows, new = in_wider_dtype(self.rows, gather_over_processes(embeddings, dim=1))
        self.rows.copy_(torch.cat([new, self.rows], 1)[:, : self.rows.shape[1]])

    def _batches(self, batch_size: int) -> Tensor:
        """Return the rows in use as (T, batches, processes, B, D)."""
        whole_batch = batch_size * world_size()
        count = self.rows.shape[1] // whole_batch
        return self.rows[:, : count * whole_batch].unflatten(1, (count, world_size(), batch_size))


def _forget(queue: nn.Module, _: object) -> None:
    """Check again whether a queue is full once its rows are loaded from a checkpoint, where they may be fewer."""
    assert isinstance(queue, ViewQueue)
    queue._known_full_for = None
