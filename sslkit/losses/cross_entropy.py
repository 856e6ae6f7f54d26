"""Cross-entropy between views."""

from typing import ClassVar

from torch import Tensor

from sslkit.contracts import Loss
from sslkit.types import Projection, TargetKind, Targets, at_least_float32, matching_pairs


class CrossEntropy(Loss):
    """Cross-entropy from each teacher view to every other student view.

    DINO §3.1 equations 1-3 (arXiv:2104.14294); SwAV's swapped prediction (arXiv:2006.09882, equation 2):

        terms = [-(targets[t] * log_softmax(logits[s] / temperature)).sum(-1).mean()
                 for t in teacher views for s in student views if s is not t]
        return mean(terms)

    Args:
        temperature: the student's, above 0 (0.1 in both papers).

    Raises:
        ValueError: a temperature that is not above 0.
    """

    accepts: ClassVar[frozenset[TargetKind]] = frozenset({"probabilities"})

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if temperature <= 0:
            raise ValueError(f"the temperature of CrossEntropy is above 0, not {temperature}")
        self.temperature = temperature

    def forward(self, student: Projection, targets: Targets) -> Tensor:
        """Compare logits (S, B, K) with probabilities (T, B, K)."""
        assert student.logits is not None
        pairs = matching_pairs(targets.view_ids, student.view_ids)
        total = student.logits.new_zeros((), dtype=targets.values.dtype)
        for s, logits in enumerate(student.logits):
            # The log-softmax of a view serves all its teachers at once: their sum is what it must match.
            teachers = [t for t, other in pairs if other == s]
            if teachers:
                wanted = targets.values[teachers].sum(0)
                total = total - (wanted * self._log_softmax(logits)).sum(-1).mean()
        return total / len(pairs)

    def log_probabilities(self, student: Projection) -> Tensor:
        assert student.logits is not None
        return self._log_softmax(student.logits)

    def _log_softmax(self, logits: Tensor) -> Tensor:
        return (at_least_float32(logits) / self.temperature).log_softmax(-1)
