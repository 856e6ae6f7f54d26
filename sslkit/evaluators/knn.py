"""Weighted k-nearest-neighbour classification."""

from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from sslkit.contracts import Backbone, Evaluator
from sslkit.errors import DataError, RecipeError
from sslkit.evaluators.features import extract, frozen, stream
from sslkit.evaluators.nearest import Nearest
from sslkit.schedules import check_range
from sslkit.types import EvaluationData, LabelledImages

NEVER = torch.iinfo(torch.long).max


class KNN(Evaluator):
    """Weighted k-nearest-neighbour classification of frozen features.

    The protocol of DINO §3.2 (arXiv:2104.14294), after instance discrimination (arXiv:1805.01978).

        similarity = cosine of frozen features, eval mode, no augmentation
        vote       = sum of exp(similarity / temperature) over the k nearest
                     training images, separately for each class

    ``top1`` is the percentage of test images whose label has the largest vote, ``top5`` of those whose label is among
    the five largest. A class that none of the k neighbours has is never among the five, even if fewer than five
    classes have votes. ``top5`` is only reported for training images of at least 5 classes. Ties of votes go to the
    lower label, ties of similarity to the earlier image. A ``k`` above the number of training images uses all of them
    and keeps its name.

    Training features are streamed in chunks and not stored. Memory grows with the test features (N, F) only.

    Args:
        k: numbers of neighbours that vote, each at least 1; all are evaluated in one pass. The paper compared several
            and found 20 the best in most runs.
        temperature: above 0; smaller values give the nearest neighbours more weight (0.07 in the paper).
        chunk: training images compared at once, at least 1.

    Raises:
        RecipeError: ``k``, ``temperature`` or ``chunk`` is out of range.
    """

    command: ClassVar[str] = "knn"

    def __init__(self, k: Sequence[int] = (20,), temperature: float = 0.07, chunk: int = 16384) -> None:
        if isinstance(k, int):
            raise RecipeError(f"KNN: k is a list of numbers of neighbours, such as k=[{k}], not {k}")
        if not k:
            raise RecipeError("the k of KNN is one or more numbers of neighbours, not none")
        for number in k:
            check_range("KNN", "k", number, "[1, inf)")
        check_range("KNN", "temperature", temperature, "(0, inf)")
        check_range("KNN", "chunk", chunk, "[1, inf)")
        self.k, self.temperature, self.chunk = tuple(sorted(set(k))), temperature, chunk
        self.protocol = f"knn-v1: cosine, exp(sim/{temperature:g}), eval-mode features without augmentation"

    def run(self, backbone: Backbone, data: EvaluationData) -> Iterator[tuple[str, float]]:
        """Yield ``knn/top1@k`` and ``knn/top5@k`` for each k, in percent.

        Raises:
            DataError: images or labels are missing.
        """
        queries, labels = extract(backbone, data.test)
        nearest = self._search(backbone, data.train, F.normalize(queries, dim=1))
        # Votes on the CPU, since `scatter_add_` is not deterministic on CUDA, and MPS has no float64.
        found = (nearest.similarities.cpu(), nearest.labels.cpu(), labels.cpu())
        blocks = [
            torch.stack(list(vote_ranks(similarities, neighbours, own, self.k, self.temperature)))
            for similarities, neighbours, own in zip(*(each.split(nearest.query_chunk) for each in found))
        ]
        for k, rank in zip(self.k, torch.cat(blocks, 1)):
            yield f"knn/top1@{k}", percent(rank < 1)
            if (data.train.num_classes or 0) >= 5:
                yield f"knn/top5@{k}", percent(rank < 5)

    def _search(self, backbone: Backbone, train: LabelledImages, queries: Tensor) -> Nearest:
        nearest = Nearest(queries, max(self.k))
        with frozen(backbone):
            for features, labels in in_chunks(stream(backbone, train), self.chunk):
                nearest.update(F.normalize(features, dim=1), labels)
        if not nearest.labels.shape[1]:
            raise DataError(f"{train.name}: there are no images")
        return nearest


def vote_ranks(
    similarities: Tensor, neighbours: Tensor, labels: Tensor, ks: Iterable[int], temperature: float
) -> Iterator[Tensor]:
    """Yield the rank (N,) of each test image's label among the votes, 0 for the largest, for each k.

    Args:
        similarities: (N, M), largest first.
        neighbours: (N, M), labels of these training images.
        labels: (N,) of the test images; a label that none of the k neighbours has is ranked `NEVER`.
        ks: numbers of neighbours, in rising order.
        temperature: of the votes.
    """
    # Labels as positions among those that occur, so that votes need no column for any other class.
    classes, positions = torch.unique(torch.cat([neighbours.flatten(), labels]), return_inverse=True)
    voted, own = positions[: neighbours.numel()].view_as(neighbours), positions[neighbours.numel() :, None]
    # Relative to the nearest neighbour and in float64: with a small temperature exp would overflow, or underflow to 0.
    weights = ((similarities - similarities[:, :1]).double() / temperature).exp()
    votes = weights.new_zeros(len(labels), len(classes))
    before = 0
    for k in ks:
        # Only the neighbours that this k adds to the previous one.
        votes.scatter_add_(1, voted[:, before:k], weights[:, before:k])
        before = min(k, voted.shape[1])
        mine = votes.gather(1, own)
        earlier = torch.arange(len(classes)) < own
        rank = ((votes > mine) | ((votes == mine) & earlier)).sum(1)
        yield torch.where(mine.squeeze(1) > 0, rank, NEVER)


def in_chunks(batches: Iterable[tuple[Tensor, Tensor]], size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches joined to chunks of at least ``size`` images; the last chunk may be smaller."""
    waiting: list[tuple[Tensor, Tensor]] = []
    for batch in batches:
        waiting.append(batch)
        if sum(len(labels) for _, labels in waiting) >= size:
            yield _joined(waiting)
            waiting = []
    if waiting:
        yield _joined(waiting)


def percent(hits: Tensor) -> float:
    """Return the percentage of true entries."""
    return 100 * hits.double().mean().item()


def _joined(batches: list[tuple[Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    features, labels = zip(*batches)
    return torch.cat(features), torch.cat(labels)
