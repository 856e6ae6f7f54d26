import pytest
import torch

from sslkit.heads.mlp_predictor import MLPPredictor


def test_the_papers_predictor():
    shapes = {name: tuple(p.shape) for name, p in MLPPredictor(256).named_parameters()}
    assert shapes == {
        "layers.0.weight": (4096, 256),
        "layers.0.bias": (4096,),
        "layers.1.weight": (4096,),
        "layers.1.bias": (4096,),
        "layers.3.weight": (256, 4096),
    }


@pytest.mark.parametrize("batch_norm", [True, False])
def test_it_is_linear_norm_relu_linear(batch_norm):
    predictor = MLPPredictor(5, hidden_dim=7, batch_norm=batch_norm).double()
    first, last = predictor.layers[0], predictor.layers[-1]
    projection = torch.randn(9, 5, dtype=torch.float64)
    hidden = projection @ first.weight.T + first.bias
    if batch_norm:
        hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(predictor(projection), hidden.clamp(min=0) @ last.weight.T)
