"""Exact nearest-neighbour search in a stream of features."""

import torch
from torch import Tensor


class Nearest:
    """Running top k of the similarities of queries with a bank of features that comes in blocks.

        scores = queries @ bank.T                       never computed as a whole
        similarities, labels = the k largest of each row, largest first

    Of equal similarities, the one of the earlier bank entry comes first. Memory holds queries, results and one block of
    scores, ``query_chunk`` x (``k`` + entries of the bank block).

    Args:
        queries: (N, F), l2-normalised for cosine similarity.
        k: neighbours to keep; there are fewer until ``k`` entries have been compared.
        query_chunk: queries compared at once.
    """

    def __init__(self, queries: Tensor, k: int, query_chunk: int = 1024) -> None:
        self.queries, self.k, self.query_chunk = queries, k, query_chunk
        self.similarities = queries.new_empty(len(queries), 0)
        self.labels = torch.empty(len(queries), 0, dtype=torch.long, device=queries.device)

    def update(self, bank: Tensor, labels: Tensor) -> None:
        """Update the neighbours with a block of the bank: entries (M, F) and labels (M,)."""
        blocks = [
            self._merge(slice(start, start + self.query_chunk), bank, labels)
            for start in range(0, len(self.queries), self.query_chunk)
        ]
        self.similarities = torch.cat([similarities for similarities, _ in blocks])
        self.labels = torch.cat([kept for _, kept in blocks])

    def _merge(self, rows: slice, bank: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        new = self.queries[rows] @ bank.T
        found = largest_first(new, min(self.k, len(labels)))
        # Earlier entries first: the stable sort then keeps them before equal later ones.
        scores = torch.cat([self.similarities[rows], new.gather(1, found)], 1)
        names = torch.cat([self.labels[rows], labels[found]], 1)
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, : self.k]
        return scores.gather(1, order), names.gather(1, order)


def largest_first(scores: Tensor, k: int) -> Tensor:
    """Return the column indices (N, k) of the k largest scores of each row of (N, M), equal ones by index.

    Equals ``scores.sort(descending=True, stable=True).indices[:, :k]``, but takes the time of ``topk``, which does not
    specify order and choice among equal scores.
    """
    values, chosen = scores.topk(min(k + 1, scores.shape[1]))
    # The choice is unspecified only where the next score equals the last chosen one: these rows are sorted in full.
    tied = (values[:, k - 1 : k] == values[:, k:]).any(1).nonzero().squeeze(1)
    chosen = chosen[:, :k]
    if len(tied):
        chosen[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    # By index first, so that the stable sort by score orders equal scores by index.
    chosen = chosen.sort(1).values
    return chosen.gather(1, scores.gather(1, chosen).sort(dim=1, descending=True, stable=True).indices)
