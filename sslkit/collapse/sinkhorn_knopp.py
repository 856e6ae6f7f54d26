"""Soft clusters of equal size."""

import torch
from torch import Tensor

from sslkit.clock import Clock
from sslkit.contracts import START, CollapseOperator
from sslkit.distributed import max_over_processes, sum_over_processes
from sslkit.types import Projection, Targets, at_least_float32


@torch.no_grad()
def balance(logits: Tensor, epsilon: float, num_iters: int) -> Tensor:
    """Turn (T, B, K) logits into (T, B, K) probabilities such that each view uses all K prototypes equally.

    Alternately, each prototype's column is scaled to sum to 1 / K over the images of all processes, and each
    image's row to sum to 1 over prototypes; the last scaling is the images'. Rows sum to 1 exactly, columns
    approach B / K.

    Args:
        logits: raw scores, not divided by a temperature.
        epsilon: entropy weight, above 0; smaller is sharper.
        num_iters: rounds of the two scalings, at least 1.
    """
    scores = at_least_float32(logits) / epsilon
    # The first round in logarithms: exp of a raw score may overflow, or underflow for all of an image's prototypes.
    largest = max_over_processes(scores.amax(1, keepdim=True))
    used = sum_over_processes((scores - largest).exp().sum(1, keepdim=True))
    weights = (scores - largest - used.log()).softmax(2)
    for _ in range(num_iters - 1):
        weights = weights / sum_over_processes(weights.sum(1, keepdim=True))
        weights = weights / weights.sum(2, keepdim=True)
    return weights


class SinkhornKnopp(CollapseOperator):
    """Soft clusters of equal size, by Sinkhorn-Knopp. SwAV §3.1 (arXiv:2006.09882), DINO table 7 row 3.

    Args:
        epsilon: entropy weight, above 0; smaller is sharper (0.05 in the paper).
        num_iters: alternating scalings of prototypes and images, at least 1 (3 in the paper).

    Raises:
        ValueError: epsilon or num_iters out of range.
    """

    def __init__(self, epsilon: float = 0.05, num_iters: int = 3) -> None:
        super().__init__()
        if epsilon <= 0:
            raise ValueError(f"the epsilon of SinkhornKnopp is above 0, not {epsilon}")
        if num_iters < 1:
            raise ValueError(f"the num_iters of SinkhornKnopp is at least 1, not {num_iters}")
        self.epsilon = epsilon
        self.num_iters = num_iters

    def forward(self, teacher: Projection, clock: Clock = START) -> Targets:
        """Balance (T, B, K) logits, view by view."""
        assert teacher.logits is not None
        return Targets(balance(teacher.logits, self.epsilon, self.num_iters), "probabilities", teacher.view_ids)
