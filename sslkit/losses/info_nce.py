"""InfoNCE, a contrastive loss."""

import math
from collections.abc import Iterator
from typing import ClassVar, Literal

import torch
from torch import Tensor

from sslkit.contracts import Loss
from sslkit.distributed import gather_over_processes, rank, world_size
from sslkit.errors import RecipeError
from sslkit.losses.temperature_advice import recommend_temperature
from sslkit.recommendation import Recommendation, RunContext
from sslkit.schedules import check_range
from sslkit.types import Projection, TargetKind, Targets, matching_pairs, unit_length

NEGATIVES = ("targets", "batch", "both")


class InfoNCE(Loss):
    """Contrastive cross-entropy that classifies the other view of an image among negatives.

    MoCo §3.1 equation 1 (arXiv:1911.05722):

        scores = cosines(student[s], [targets[t] of the same image, negatives]) / temperature
        terms = [-log_softmax(scores)[same image].mean()
                 for t in teacher views for s in student views if s is not t]
        return mean(terms)

    MoCo-v2 (arXiv:2003.04297) has one student view and one teacher view; ``student_views`` and ``teacher_views`` of a
    recipe choose both directions.

    In-batch negatives are the targets of the other images of all processes, in the same teacher view. No gradient flows
    through targets, so an image's gradient depends on its own student views and on the targets of the whole batch. A
    micro-batch has fewer of those, so gradient accumulation with in-batch negatives is refused.

    Args:
        temperature: above 0 (0.2 in MoCo-v2, 0.07 in MoCo).
        negatives: ``targets`` for the negatives of the collapse operator (``NegativeQueue``), ``batch`` for in-batch
            negatives, ``both`` for both.

    Raises:
        ValueError: ``temperature`` is not above 0.
        RecipeError: ``negatives`` is none of these.
    """

    accepts: ClassVar[frozenset[TargetKind]] = frozenset({"embedding"})

    def __init__(self, temperature: float = 0.2, negatives: Literal["targets", "batch", "both"] = "targets") -> None:
        super().__init__()
        check_range("InfoNCE", "temperature", temperature, "(0, inf)")
        if negatives not in NEGATIVES:
            raise RecipeError(f"InfoNCE: negatives is one of {', '.join(NEGATIVES)}, not {negatives!r}")
        self.temperature = temperature
        self.needs_negatives = negatives != "batch"
        self.couples_batch = negatives != "targets"

    def forward(self, student: Projection, targets: Targets) -> Tensor:
        """Return the loss, (), of student embeddings (S, B, D), target embeddings (T, B, D) and negatives (Q, D)."""
        mine, theirs = unit_length(student.embedding), unit_length(targets.values)
        queued = self._queued(mine, targets)
        batch = gather_over_processes(theirs, dim=1) if self.couples_batch else None
        pairs = matching_pairs(targets.view_ids, student.view_ids)
        total = mine.new_zeros(())
        for t, s in pairs:
            # The positive comes first, so that its log-probability is column 0.
            scores = [(mine[s] * theirs[t]).sum(-1, keepdim=True)]
            if queued is not None:
                scores.append(queued[s])
            if batch is not None:
                scores.append(_others(mine[s], batch[t]))
            total = total - (torch.cat(scores, 1) / self.temperature).log_softmax(1)[:, 0].mean()
        return total / len(pairs)

    def chance(self, student: Projection, targets: Targets) -> float:
        """Return ln(1 + number of negatives), the loss where the negatives are as similar as the other view."""
        queued = 0 if targets.negatives is None or not self.needs_negatives else len(targets.negatives)
        others = targets.values.shape[1] * world_size() - 1 if self.couples_batch else 0
        return math.log(1 + queued + others)

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        yield from recommend_temperature(self.temperature, 0.2, "MoCo-v2: 0.2")

    def _queued(self, mine: Tensor, targets: Targets) -> Tensor | None:
        """Return cosines (S, B, Q) with the negatives of the collapse operator, the same for all teacher views."""
        if not self.needs_negatives:
            return None
        assert targets.negatives is not None
        return _cosines(mine, targets.negatives.to(mine.dtype))


def _others(mine: Tensor, batch: Tensor) -> Tensor:
    """Return cosines (B, N) of embeddings (B, D) with targets (N, D) of all processes, -inf for the same image."""
    # The position of each image in the gathered batch: its own target there is the positive, not a negative.
    images = torch.arange(len(mine), device=mine.device) + rank() * len(mine)
    same = images[:, None] == torch.arange(len(batch), device=mine.device)
    return _cosines(mine, batch).masked_fill(same, -torch.inf)


def _cosines(mine: Tensor, theirs: Tensor) -> Tensor:
    """Return ``mine @ theirs.T`` in the dtype of its arguments, also under autocast."""
    # Divided by a temperature of 0.07, a cosine rounded to bf16 is off by up to 0.03.
    with torch.autocast(mine.device.type, enabled=False):
        return mine @ theirs.T
