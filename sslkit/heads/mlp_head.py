"""MLP projection head without prototypes, as in MoCo-v2 and BYOL."""

from collections.abc import Iterator

from torch import nn

from sslkit.contracts import Head
from sslkit.heads.widths import check_widths, recommend_widths
from sslkit.recommendation import Recommendation, RunContext
from sslkit.schedules import check_range


class MLPHead(Head):
    """MLP with ReLU and optional batch norm between its linear layers; the branch l2-normalises its output.

        MoCo-v2 (arXiv:2003.04297, code)       the defaults
        BYOL (arXiv:2006.07733, §3.3)          hidden_dim 4096, embed_dim 256,
                                               batch_norm, last_bias false
        DINO table 14 rows 5-6                 num_layers 3, batch_norm

    Weights are initialised as torch initialises its layers.

    Args:
        in_dim: F, the backbone's ``embed_dim``.
        hidden_dim: width of the hidden layers; null for the backbone's.
        embed_dim: D.
        num_layers: linear layers, at least 1.
        batch_norm: whether a BatchNorm follows each hidden linear layer.
        last_bias: whether the last linear layer has a bias.

    Raises:
        RecipeError: a width below 1, or fewer than one layer.
    """

    def __init__(
        self,
        in_dim: int,
        hidden_dim: int | None = None,
        embed_dim: int = 128,
        num_layers: int = 2,
        batch_norm: bool = False,
        last_bias: bool = True,
    ) -> None:
        super().__init__()
        check_widths("MLPHead", in_dim=in_dim, hidden_dim=hidden_dim, embed_dim=embed_dim, num_layers=num_layers)
        check_range("MLPHead", "num_layers", num_layers, "[1, 100]")
        hidden_dim = hidden_dim or in_dim
        layers: list[nn.Module] = []
        width = in_dim
        for _ in range(num_layers - 1):
            norm = [nn.BatchNorm1d(hidden_dim)] if batch_norm else []
            layers += [nn.Linear(width, hidden_dim), *norm, nn.ReLU()]
            width = hidden_dim
        self.projector = nn.Sequential(*layers, nn.Linear(width, embed_dim, bias=last_bias))
        self.prototypes = None
        self.in_dim, self.embed_dim = in_dim, embed_dim
        self.widths = {"embed_dim": embed_dim, **({"hidden_dim": hidden_dim} if num_layers > 1 else {})}

    def recommend(self, context: RunContext) -> Iterator[Recommendation]:
        return recommend_widths(**self.widths)
