import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslkit.heads.swav_head import SwAVHead


def test_the_papers_head():
    head = SwAVHead(24)
    assert {name: tuple(p.shape) for name, p in head.named_parameters()} == {
        "projector.0.weight": (2048, 24),
        "projector.0.bias": (2048,),
        "projector.1.weight": (2048,),
        "projector.1.bias": (2048,),
        "projector.3.weight": (128, 2048),
        "projector.3.bias": (128,),
        "prototypes.weight": (3000, 128),
    }
    assert [type(layer) for layer in head.projector] == [nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.Linear]
    assert (head.embed_dim, head.num_prototypes, head.normalize) == (128, 3000, True)


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-6)])
def test_logits(dtype, tolerance):
    head = SwAVHead(5, num_prototypes=9, hidden_dim=7, embed_dim=3).to(dtype)
    features = torch.randn(24, 5, dtype=dtype)
    logits = head.prototypes(F.normalize(head.projector(features), dim=-1))
    first, norm, _, last = (copy.deepcopy(layer).double() for layer in head.projector)
    hidden = features.double() @ first.weight.T + first.bias
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt() * norm.weight + norm.bias
    z = hidden.clamp(min=0) @ last.weight.T + last.bias
    expected = z / z.square().sum(1, keepdim=True).sqrt() @ head.prototypes.weight.double().T
    assert (logits.double() - expected).norm() <= tolerance * expected.norm()


def test_prototypes_are_scaled_to_1_before_a_step_and_stay_the_parameter():
    head = SwAVHead(4, num_prototypes=3, hidden_dim=4, embed_dim=2).double()
    parameter = head.prototypes.weight
    with torch.no_grad():
        parameter.copy_(torch.tensor([[3.0, 4.0], [0.0, -2.0], [0.6, 0.8]], dtype=torch.float64))
    head.before_step()
    expected = torch.tensor([[0.6, 0.8], [0.0, -1.0], [0.6, 0.8]], dtype=torch.float64)
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-15, atol=0)
    assert head.prototypes.weight is parameter
    assert parameter.requires_grad
    assert parameter.grad_fn is None


def test_without_prototypes_the_projector_is_left():
    head = SwAVHead(5, num_prototypes=None, hidden_dim=7, embed_dim=3)
    head.before_step()
    assert head.prototypes is None
    assert head.num_prototypes is None
    assert {name.partition(".")[0] for name in head.state_dict()} == {"projector"}
    assert head.projector(torch.randn(4, 5)).shape == (4, 3)
