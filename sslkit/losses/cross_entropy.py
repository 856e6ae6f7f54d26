"""Cross-entropy between the views of an image."""

import math
from collections.abc import Iterator
from typing import ClassVar

import torch
from torch import Tensor

from sslkit.contracts import Loss
from sslkit.losses.temperature_advice import recommend_temperature
from sslkit.recommendation import Recommendation, RunContext
from sslkit.schedules import check_range
from sslkit.types import Projection, TargetKind, Targets, at_least_float32, matching_pairs


class CrossEntropy(Loss):
    """Cross-entropy between the targets of each teacher view and every other student view.

    DINO §3.1 equations 1-3 (arXiv:2104.14294); SwAV's swapped prediction (arXiv:2006.09882, equation 2):

        terms = [-(targets[t] * log_softmax(logits[s] / temperature)).sum(-1).mean()
                 for t in teacher views for s in student views if s is not t]
        return mean(terms)

    Args:
        temperature: of the student, above 0 (0.1 in both papers).

    Raises:
        ValueError: ``temperature`` is not above 0.
    """

    accepts: ClassVar[frozenset[TargetKind]] = frozenset({"probabilities"})

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        check_range("CrossEntropy", "temperature", temperature, "(0, inf)")
        self.temperature = temperature

    def forward(self, student: Projection, targets: Targets) -> Tensor:
        """Return the loss, (), of student logits (S, B, K) and target probabilities (T, B, K)."""
        pairs = matching_pairs(targets.view_ids, student.view_ids)
        log_student = self.log_probabilities(student)
        total = log_student.new_zeros(())
        summed: dict[tuple[int, ...], Tensor] = {}
        for s, log_view in enumerate(log_student):
            # Cross-entropy is linear in its targets: one product with the sum of a view's targets serves all of them.
            # Most student views share the same teacher views, so that the sum is made once.
            teachers = tuple(t for t, other in pairs if other == s)
            if teachers:
                if teachers not in summed:
                    summed[teachers] = torch.stack([targets.values[t] for t in teachers]).sum(0)
                total = total - (summed[teachers] * log_view).sum(-1).mean()
        return total / len(pairs)

    def log_probabilities(self, student: Projection) -> Tensor:
        assert student.logits is not None
        # In float32 at least: divided by 0.1, the rounding error of bf16 logits would be ten times as large.
        return (at_least_float32(student.logits) / self.temperature).log_softmax(-1)

    def chance(self, student: Projection, targets: Targets) -> float:
        """Return ln K, the loss of a student with the same probability for every prototype."""
        return math.log(targets.values.shape[-1])

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        yield from recommend_temperature(self.temperature, 0.1, "DINO, SwAV: 0.1")
