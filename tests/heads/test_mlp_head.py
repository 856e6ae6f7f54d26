import pytest
import torch

from sslkit.contracts import Predictor
from sslkit.errors import RecipeError
from sslkit.heads.mlp_head import MLPHead
from sslkit.heads.mlp_predictor import MLPPredictor


def shapes(module):
    return {name: tuple(p.shape) for name, p in module.named_parameters()}


def kinds(head):
    return [type(layer).__name__ for layer in head.projector]


def test_moco_v2():
    head = MLPHead(512)
    assert kinds(head) == ["Linear", "ReLU", "Linear"]
    assert shapes(head) == {
        "projector.0.weight": (512, 512),
        "projector.0.bias": (512,),
        "projector.2.weight": (128, 512),
        "projector.2.bias": (128,),
    }
    assert (head.embed_dim, head.num_prototypes, head.prototypes, head.normalize) == (128, None, None, True)


def test_byols_projector_has_the_layers_of_its_predictor():
    head = MLPHead(32, hidden_dim=4096, embed_dim=256, batch_norm=True, last_bias=False)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU", "Linear"]
    assert shapes(head) == {
        "projector.0.weight": (4096, 32),
        "projector.0.bias": (4096,),
        "projector.1.weight": (4096,),
        "projector.1.bias": (4096,),
        "projector.3.weight": (256, 4096),
    }
    predictor = MLPPredictor(256)
    assert isinstance(predictor, Predictor)
    assert [type(layer).__name__ for layer in predictor.layers] == kinds(head)


def test_the_papers_three_layers_with_batch_norm():
    head = MLPHead(8, hidden_dim=16, embed_dim=6, num_layers=3, batch_norm=True)
    assert kinds(head) == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear"]
    assert [layer.out_features for layer in head.projector[::3]] == [16, 16, 6]


@pytest.mark.parametrize("last_bias", [True, False])
@pytest.mark.parametrize("batch_norm", [True, False])
@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_values(num_layers, batch_norm, last_bias):
    head = MLPHead(5, 7, 3, num_layers, batch_norm, last_bias).double()
    rows = features = torch.randn(9, 5, dtype=torch.float64)
    linears = [layer for layer in head.projector if isinstance(layer, torch.nn.Linear)]
    assert len(linears) == num_layers
    for layer in linears[:-1]:
        rows = rows @ layer.weight.T + layer.bias
        if batch_norm:
            rows = (rows - rows.mean(0)) / (rows.var(0, correction=0) + 1e-5).sqrt()
        rows = rows.clamp(min=0)
    rows = rows @ linears[-1].weight.T + (linears[-1].bias if last_bias else 0)
    torch.testing.assert_close(head.projector(features), rows, rtol=1e-11, atol=1e-14)
    assert (linears[-1].bias is not None) == last_bias


def test_a_head_without_layers_is_refused():
    with pytest.raises(RecipeError, match="num_layers is at least 1, not 0"):
        MLPHead(4, num_layers=0)
