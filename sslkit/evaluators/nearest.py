"""Nearest neighbours of many queries in a bank of embeddings that is streamed."""

import torch
from torch import Tensor


class Nearest:
    """The ``k`` most similar bank entries of each query, updated block by block of the bank.

    scores = queries @ bank.T                       never made whole
    similarities, labels = the k largest of each row, largest first

    Among equal similarities the entry that came first is nearer. Beside queries and result, memory holds one
    block of scores, ``query_chunk`` by (``k`` + the entries given at once).

    Args:
        queries: (N, F), l2-normalised for cosine similarity.
        k: neighbours to keep; fewer are kept while fewer have gone by.
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
        scores = torch.cat([self.similarities[rows], new.gather(1, found)], 1)
        names = torch.cat([self.labels[rows], labels[found]], 1)
        order = scores.sort(dim=1, descending=True, stable=True).indices[:, : self.k]
        return scores.gather(1, order), names.gather(1, order)


def largest_first(scores: Tensor, k: int) -> Tensor:
    """Return the positions (N, k) of each row's k largest scores (N, M), largest first, equal ones in order.

    ``scores.sort(descending=True, stable=True).indices[:, :k]`` at the price of ``topk``, which leaves the order
    and the choice among equals open.
    """
    values, chosen = scores.topk(min(k + 1, scores.shape[1]))
    # Only where the next score equals the last chosen one was the choice open.
    tied = (values[:, k - 1 : k] == values[:, k:]).any(1).nonzero().squeeze(1)
    chosen = chosen[:, :k]
    if len(tied):
        chosen[tied] = scores[tied].sort(dim=1, descending=True, stable=True).indices[:, :k]
    chosen = chosen.sort(1).values
    return chosen.gather(1, scores.gather(1, chosen).sort(dim=1, descending=True, stable=True).indices)
