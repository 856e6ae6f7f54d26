"""Projection head of SwAV."""

from collections.abc import Iterator

import torch
from torch import nn
from torch.nn import functional as F

from sslkit.contracts import Head
from sslkit.heads.prototype_advice import few_images, images_a_prototype
from sslkit.heads.widths import check_widths, recommend_widths
from sslkit.recommendation import Recommendation, RunContext


class SwAVHead(Head):
    """MLP with batch norm, l2 normalisation and linear prototypes. SwAV §3.1 and appendix A (arXiv:2006.09882).

        projector = Linear, BatchNorm, ReLU, Linear(hidden_dim, embed_dim)
        embedding = projector(features) / norm            normalised by `Branch`
        logits    = embedding @ weight.T, (N, K)

    Each prototype is scaled to length 1 at the start of a step. The optimizer then changes it freely, so saved
    prototypes are not normalised. The published code freezes the prototypes at first (``optimization.freeze``). Weights
    are initialised as torch initialises its layers.

    Args:
        in_dim: F, the backbone's ``embed_dim``.
        num_prototypes: K (3000 in the paper); null for a projector without prototypes.
        hidden_dim: width of the hidden layer.
        embed_dim: D.

    Raises:
        RecipeError: a width below 1.
    """

    prototypes: nn.Linear | None

    def __init__(
        self, in_dim: int, num_prototypes: int | None = 3000, hidden_dim: int = 2048, embed_dim: int = 128
    ) -> None:
        super().__init__()
        check_widths(
            "SwAVHead", in_dim=in_dim, num_prototypes=num_prototypes, hidden_dim=hidden_dim, embed_dim=embed_dim
        )
        self.projector = nn.Sequential(
            nn.Linear(in_dim, hidden_dim), nn.BatchNorm1d(hidden_dim), nn.ReLU(), nn.Linear(hidden_dim, embed_dim)
        )
        self.prototypes = None if num_prototypes is None else nn.Linear(embed_dim, num_prototypes, bias=False)
        self.in_dim, self.embed_dim = in_dim, embed_dim
        self.num_prototypes = num_prototypes
        self.widths = {"hidden_dim": hidden_dim, "embed_dim": embed_dim}

    @torch.no_grad()
    def before_step(self) -> None:
        if self.prototypes is not None:
            weight = self.prototypes.weight
            # In place, so that it stays the parameter that the optimizer holds, with its moments.
            weight.copy_(F.normalize(weight, dim=1))

    def describe(self, context: RunContext) -> Iterator[tuple[str, str]]:
        return images_a_prototype(self.num_prototypes, context)

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        yield from few_images(self.num_prototypes, context)
        yield from recommend_widths(**self.widths)
