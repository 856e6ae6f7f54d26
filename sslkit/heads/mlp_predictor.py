"""MLP predictor, as in BYOL."""

from torch import Tensor, nn

from sslkit.contracts import Predictor
from sslkit.heads.widths import check_widths


class MLPPredictor(Predictor):
    """MLP predictor: Linear, BatchNorm, ReLU, Linear without bias. BYOL §3.3 and appendix J (arXiv:2006.07733).

    Args:
        dim: D, width of the projector's output and of the prediction.
        hidden_dim: width of the hidden layer (4096 in the paper).
        batch_norm: whether a BatchNorm follows the hidden linear layer.

    Raises:
        RecipeError: a width below 1.
    """

    def __init__(self, dim: int, hidden_dim: int = 4096, batch_norm: bool = True) -> None:
        super().__init__()
        check_widths("MLPPredictor", dim=dim, hidden_dim=hidden_dim)
        self.dim = dim
        norm = [nn.BatchNorm1d(hidden_dim)] if batch_norm else []
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden_dim), *norm, nn.ReLU(), nn.Linear(hidden_dim, dim, bias=False)
        )

    def forward(self, projection: Tensor) -> Tensor:
        """Return predictions (N, D) of projections (N, D)."""
        prediction: Tensor = self.layers(projection)
        return prediction
