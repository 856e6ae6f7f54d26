"""Mean squared error between l2-normalised outputs."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from torch import Tensor

from sslkit.contracts import Loss
from sslkit.errors import RecipeError
from sslkit.recommendation import Recommendation, RunContext
from sslkit.types import Projection, TargetKind, Targets, matching_pairs, unit_length

REDUCTIONS = ("mean", "sum")


class MSE(Loss):
    """Squared distance of l2-normalised outputs, 2 - 2 cosine, of each teacher view and every other student view.

    BYOL §3.1 equation 2 (arXiv:2006.07733):

        terms = [((student[s] / norm - targets[t] / norm) ** 2).sum(-1).mean()
                 for t in teacher views for s in student views if s is not t]
        return sum(terms) or mean(terms)

    Targets of kind ``embedding`` are compared with the student's embedding, after its predictor if it has one. Targets
    of kind ``logits``, such as those of ``Centering(temperature=None)``, are compared with the student's logits without
    a softmax (DINO table 14 rows 2 and 9, arXiv:2104.14294).

    Args:
        reduction: over the pairs of views. BYOL adds its two directions, so ``sum`` is the published loss, in [0, 8];
            with ``mean`` its gradient is halved. With multi-crop ``sum`` grows with the number of pairs.

    Raises:
        RecipeError: ``reduction`` is neither ``mean`` nor ``sum``.
    """

    accepts: ClassVar[frozenset[TargetKind]] = frozenset({"embedding", "logits"})

    def __init__(self, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise RecipeError(f"MSE: reduction is one of {', '.join(REDUCTIONS)}, not {reduction!r}")
        self.reduction = reduction

    def forward(self, student: Projection, targets: Targets) -> Tensor:
        """Return the loss, (), of student outputs (S, B, D or K) and targets (T, B, D or K)."""
        outputs = student.embedding if targets.kind == "embedding" else student.logits
        assert outputs is not None
        mine, theirs = unit_length(outputs), unit_length(targets.values)
        pairs = matching_pairs(targets.view_ids, student.view_ids)
        total = mine.new_zeros(())
        for t, s in pairs:
            # The squared difference rather than 2 - 2 cos, which cancels the digits of a small loss.
            total = total + (mine[s] - theirs[t]).square().sum(-1).mean()
        return total if self.reduction == "sum" else total / len(pairs)

    def chance(self, student: Projection, targets: Targets) -> float:
        """Return 2 for each pair of views, the expected squared distance of random unit vectors."""
        pairs = len(matching_pairs(targets.view_ids, student.view_ids))
        return 2.0 * pairs if self.reduction == "sum" else 2.0

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        if not (context.has_predictor or context.has_operator):
            yield Recommendation(
                "without a predictor and a collapse operator the outputs collapse to a constant: 0.1 % linear",
                "DINO table 14 row 8",
                leads_to=("constant embeddings", "dimensional collapse"),
                remedy={"method.predictor": "MLPPredictor"},
            )
