"""Mean squared error between normalised outputs of views."""

from collections.abc import Iterator
from typing import ClassVar, Literal

from torch import Tensor

from sslkit.contracts import Loss
from sslkit.errors import RecipeError
from sslkit.recommendation import Recommendation, RunContext
from sslkit.types import Projection, TargetKind, Targets, matching_pairs, unit_length

REDUCTIONS = ("mean", "sum")


class MSE(Loss):
    """2 - 2 cosine from each teacher view to every other student view.

    BYOL §3.1 equation 2 (arXiv:2006.07733):

        terms = [((student[s] / norm - targets[t] / norm) ** 2).sum(-1).mean()
                 for t in teacher views for s in student views if s is not t]
        return sum(terms) or mean(terms)

    Embedding targets are compared with the student's embedding, after its predictor. Targets that are logits, such
    as those of ``Centering(temperature=None)``, are compared with the student's logits (DINO table 14 rows 2 and 9,
    arXiv:2104.14294); nothing is sharpened.

    Args:
        reduction: over the pairs of views. BYOL adds its two directions, so ``sum`` is the published loss, in 0 .. 8;
            with ``mean`` the same learning rate takes half the step. With multi-crop ``sum`` grows with the pairs.

    Raises:
        RecipeError: an unknown reduction.
    """

    accepts: ClassVar[frozenset[TargetKind]] = frozenset({"embedding", "logits"})

    def __init__(self, reduction: Literal["mean", "sum"] = "mean") -> None:
        super().__init__()
        if reduction not in REDUCTIONS:
            raise RecipeError(f"MSE: reduction is one of {', '.join(REDUCTIONS)}, not {reduction!r}")
        self.reduction = reduction

    def forward(self, student: Projection, targets: Targets) -> Tensor:
        """Compare outputs (S, B, D or K) with targets (T, B, D or K)."""
        outputs = student.embedding if targets.kind == "embedding" else student.logits
        assert outputs is not None
        mine, theirs = unit_length(outputs), unit_length(targets.values)
        pairs = matching_pairs(targets.view_ids, student.view_ids)
        total = mine.new_zeros(())
        for t, s in pairs:
            # The difference, not 2 - 2 cos, which loses the digits of a small loss.
            total = total + (mine[s] - theirs[t]).square().sum(-1).mean()
        return total if self.reduction == "sum" else total / len(pairs)

    def chance(self, student: Projection, targets: Targets) -> float:
        """Return 2 a pair of views: outputs are as far apart as directions drawn at random."""
        pairs = len(matching_pairs(targets.view_ids, student.view_ids))
        return 2.0 * pairs if self.reduction == "sum" else 2.0

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        if not (context.has_predictor or context.has_operator):
            yield Recommendation(
                "without predictor and collapse operator nothing keeps the answers from becoming one: 0.1 % linear",
                "DINO table 14 row 8",
                leads_to=("constant embeddings", "dimensional collapse"),
                remedy={"method.predictor": "MLPPredictor"},
            )
