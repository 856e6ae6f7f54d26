"""Weight-normalised prototypes are those of torch, without the normalised weight in memory."""

import copy
import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslkit.heads.dino_head import DINOHead
from sslkit.heads.weight_norm import WeightNormPrototypes


def rows(n, dim, dtype=torch.float64):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(n * dim), dtype=dtype)


def logits_of(head, features):
    embedding = head.projector(features)
    return head.prototypes(F.normalize(embedding, dim=-1) if head.normalize else embedding)


@pytest.mark.parametrize("frozen", [True, False])
def test_values_and_gradients_are_those_of_torchs_weight_norm(frozen):
    head = DINOHead(7, 11, hidden_dim=13, embed_dim=5, freeze_prototype_norm=frozen).double()
    slow = nn.utils.parametrizations.weight_norm(nn.Linear(5, 11, bias=False).double())
    with torch.no_grad():
        head.prototypes.weight_g.copy_(rows(11, 1).abs() + 0.5)
        slow.parametrizations.weight.original0.copy_(head.prototypes.weight_g)
        slow.parametrizations.weight.original1.copy_(head.prototypes.weight_v)
    mlp = copy.deepcopy(head.projector)
    features, weights = rows(4, 7), rows(4, 11)
    ours = logits_of(head, features)
    hidden = F.gelu(mlp[2](F.gelu(mlp[0](features))))
    embedding = mlp[4](hidden)
    theirs = slow(embedding / embedding.norm(dim=1, keepdim=True))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    (ours * weights).sum().backward()
    (theirs * weights).sum().backward()
    parts = [(head.prototypes.weight_v, slow.parametrizations.weight.original1)]
    parts += zip(head.projector.parameters(), mlp.parameters(), strict=True)
    if not frozen:
        parts += [(head.prototypes.weight_g, slow.parametrizations.weight.original0)]
    for mine, other in parts:
        torch.testing.assert_close(mine.grad, other.grad, rtol=1e-11, atol=1e-13)
    assert head.prototypes.weight_g.requires_grad is not frozen


@pytest.mark.parametrize("shape", [(6, 3), (2, 4, 3)])
def test_a_prototype_of_length_0_has_a_gradient(shape):
    layer = WeightNormPrototypes(3, 5, freeze_norm=False).double()
    embedding = rows(math.prod(shape[:-1]), 3).view(shape).requires_grad_()
    v = layer.weight_v.detach().clone().requires_grad_()
    g = torch.tensor([[0.0], [1.0], [-2.0], [0.0], [0.3]], dtype=torch.float64, requires_grad=True)

    def scores(embedding, v, g):
        return torch.func.functional_call(layer, {"weight_v": v, "weight_g": g}, (embedding,))

    assert torch.autograd.gradcheck(scores, (embedding, v, g))
    (slope,) = torch.autograd.grad(scores(embedding, v, g).sum(), g)
    expected = (embedding.flatten(0, -2) @ F.normalize(v, dim=1).T).sum(0)
    torch.testing.assert_close(slope.squeeze(1), expected, rtol=1e-12, atol=1e-14)


def test_prototypes_by_hand():
    head = DINOHead(2, 2, embed_dim=2, num_layers=1)
    with torch.no_grad():
        head.projector[0].weight.copy_(torch.tensor([[3.0, 0.0], [0.0, 4.0]]))
        head.prototypes.weight_v.copy_(torch.tensor([[5.0, 0.0], [3.0, 4.0]]))
        head.prototypes.weight_g.copy_(torch.tensor([[2.0], [10.0]]))
    # (3, 4) / 5 = (0.6, 0.8); rows 2 * (1, 0) and 10 * (0.6, 0.8).
    torch.testing.assert_close(logits_of(head, torch.ones(1, 2)), torch.tensor([[1.2, 10.0]]))
