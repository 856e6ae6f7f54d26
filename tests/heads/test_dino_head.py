import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sslkit.errors import RecipeError
from sslkit.heads.dino_head import DINOHead


def rows(n, dim, dtype=torch.float64):
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(n * dim), dtype=dtype)


def logits_of(head, features):
    embedding = head.projector(features)
    return head.prototypes(F.normalize(embedding, dim=-1) if head.normalize else embedding)


def layers_of(head):
    return [type(layer).__name__ for layer in head.projector]


def test_the_papers_head():
    head = DINOHead(24)
    assert layers_of(head) == ["Linear", "GELU", "Linear", "GELU", "Linear"]
    assert [tuple(layer.weight.shape) for layer in head.projector if isinstance(layer, nn.Linear)] == [
        (2048, 24),
        (2048, 2048),
        (256, 2048),
    ]
    assert {name: tuple(p.shape) for name, p in head.prototypes.named_parameters()} == {
        "weight_g": (65536, 1),
        "weight_v": (65536, 256),
    }
    assert (head.embed_dim, head.num_prototypes, head.normalize) == (256, 65536, True)


def test_first_weights():
    torch.manual_seed(0)
    head = DINOHead(32, num_prototypes=500, hidden_dim=64, embed_dim=16)
    for layer in head.projector:
        if isinstance(layer, nn.Linear):
            assert layer.weight.std().item() == pytest.approx(0.02, rel=0.1)
            assert not layer.bias.any()
    bound = 16**-0.5  # nn.Linear's default is uniform within 1 / sqrt(in)
    assert head.prototypes.weight_v.abs().max().item() == pytest.approx(bound, rel=0.01)
    assert head.prototypes.weight_v.std().item() == pytest.approx(bound / 3**0.5, rel=0.03)
    assert (head.prototypes.weight_g == 1).all()


@pytest.mark.parametrize("num_layers", [1, 2, 4])
def test_depth_activation_and_batch_norm(num_layers):
    head = DINOHead(6, 9, hidden_dim=8, embed_dim=4, num_layers=num_layers, activation="relu", batch_norm=True)
    assert layers_of(head) == ["Linear", "BatchNorm1d", "ReLU"] * (num_layers - 1) + ["Linear"]
    assert logits_of(head, rows(3, 6, torch.float32)).shape == (3, 9)


@pytest.mark.parametrize("num_layers", [0, 1, 3])
def test_without_bottleneck_every_layer_is_hidden_and_nothing_is_normalised(num_layers):
    torch.manual_seed(0)
    head = DINOHead(40, 70, hidden_dim=50, num_layers=num_layers, l2_bottleneck=False)
    assert layers_of(head) == ["Linear", "GELU"] * num_layers
    assert not head.normalize
    assert head.embed_dim == (50 if num_layers else 40)
    assert {name: tuple(p.shape) for name, p in head.prototypes.named_parameters()} == {"weight": (70, head.embed_dim)}
    assert head.prototypes.weight.std().item() == pytest.approx(0.02, rel=0.1)
    features = rows(3, 40, torch.float32)
    torch.testing.assert_close(logits_of(head, features), head.projector(features) @ head.prototypes.weight.T)


@pytest.mark.parametrize("l2_bottleneck", [True, False])
def test_without_prototypes_the_projector_is_left(l2_bottleneck):
    torch.manual_seed(0)
    head = DINOHead(6, None, hidden_dim=8, embed_dim=4, l2_bottleneck=l2_bottleneck)
    torch.manual_seed(0)
    other = DINOHead(6, 9, hidden_dim=8, embed_dim=4, l2_bottleneck=l2_bottleneck)
    assert head.prototypes is None
    assert head.num_prototypes is None
    assert (head.embed_dim, head.normalize) == (other.embed_dim, l2_bottleneck)
    assert set(head.state_dict()) == {name for name in other.state_dict() if name.startswith("projector")}
    features = rows(3, 6, torch.float32)
    assert torch.equal(head.projector(features), other.projector(features))


@pytest.mark.parametrize("l2_bottleneck", [True, False])
def test_logits_are_float32_at_least(l2_bottleneck):
    head = DINOHead(6, 9, hidden_dim=8, embed_dim=8, l2_bottleneck=l2_bottleneck)
    with torch.autocast("cpu", torch.bfloat16):
        assert logits_of(head, rows(3, 6, torch.float32)).dtype == torch.float32
    assert logits_of(head.bfloat16(), rows(3, 6, torch.bfloat16)).dtype == torch.float32
    assert logits_of(head.double(), rows(3, 6)).dtype == torch.float64


def test_a_copy_is_independent_and_the_state_has_plain_names():
    head = DINOHead(6, 9, hidden_dim=8, embed_dim=4, num_layers=2)
    twin = copy.deepcopy(head)
    features = rows(3, 6, torch.float32)
    before = logits_of(head, features)
    logits_of(twin, features).square().sum().backward()
    with torch.no_grad():
        for parameter in twin.parameters():
            parameter.add_(0.1)
    assert torch.equal(logits_of(head, features), before)
    assert not torch.allclose(logits_of(twin, features), before)
    names = {"projector.0.weight", "projector.0.bias", "projector.2.weight", "projector.2.bias"}
    assert set(head.state_dict()) == names | {"prototypes.weight_g", "prototypes.weight_v"}
    twin.load_state_dict(head.state_dict())
    assert torch.equal(logits_of(twin, features), before)


def test_impossible_heads_are_refused():
    with pytest.raises(RecipeError, match="num_layers=0 leaves no layer"):
        DINOHead(4, num_prototypes=4, num_layers=0)
    with pytest.raises(RecipeError, match=r"num_layers of DINOHead lies in \[0, 100\], not -1"):
        DINOHead(4, num_prototypes=4, num_layers=-1, l2_bottleneck=False)
    with pytest.raises(RecipeError, match="one of gelu, relu, not 'tanh'"):
        DINOHead(4, num_prototypes=4, activation="tanh")
