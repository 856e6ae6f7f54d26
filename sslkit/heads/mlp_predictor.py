"""BYOL's predictor."""

from torch import Tensor, nn

from sslkit.contracts import Predictor


class MLPPredictor(Predictor):
    """Linear, BatchNorm, ReLU, Linear without bias. BYOL §3.3 and appendix J, arXiv:2006.07733.

    Args:
        dim: D, the projector's output and its own.
        hidden_dim: width of the hidden layer (4096 in the paper).
        batch_norm: whether the hidden layer is batch-normalised.
    """

    def __init__(self, dim: int, hidden_dim: int = 4096, batch_norm: bool = True) -> None:
        super().__init__()
        norm = [nn.BatchNorm1d(hidden_dim)] if batch_norm else []
        self.layers = nn.Sequential(
            nn.Linear(dim, hidden_dim), *norm, nn.ReLU(), nn.Linear(hidden_dim, dim, bias=False)
        )

    def forward(self, projection: Tensor) -> Tensor:
        """Predict (N, D) from (N, D)."""
        prediction: Tensor = self.layers(projection)
        return prediction
