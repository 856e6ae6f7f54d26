import pytest
import torch
from optimized import Odd
from torch import nn

from sslkit.optimizers.adamw import AdamW
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-6)])
def test_adamw_is_the_papers_update(dtype, tolerance):
    module = Odd().to(dtype)
    betas, eps = (0.8, 0.95), 1e-6
    optimizer = AdamW(betas, eps).build(parameter_groups(module))
    learning = {name: p for name, p in module.named_parameters() if p.requires_grad}
    slow = {name: p.detach().double() for name, p in learning.items()}
    first = {name: torch.zeros_like(p) for name, p in slow.items()}
    second = {name: torch.zeros_like(p) for name, p in slow.items()}
    for step in range(1, 5):
        lr, weight_decay = 0.1 / step, 0.1 * step
        set_rates(optimizer, lr, weight_decay)
        for name, parameter in learning.items():
            parameter.grad = torch.randn_like(parameter)
            gradient = parameter.grad.double()
            first[name] = betas[0] * first[name] + (1 - betas[0]) * gradient
            second[name] = betas[1] * second[name] + (1 - betas[1]) * gradient**2
            decay = weight_decay if name in ("linear.weight", "pos_embed", "cls_token") else 0
            mean, square = first[name] / (1 - betas[0] ** step), second[name] / (1 - betas[1] ** step)
            slow[name] = slow[name] * (1 - lr * decay) - lr * mean / (square.sqrt() + eps)
        optimizer.step()
    for name, parameter in learning.items():
        assert (parameter.double() - slow[name]).norm() <= tolerance * slow[name].norm()


def test_adamw_by_hand():
    # The first step moves by lr against the sign, after a decay of lr * weight_decay.
    parameter = nn.Parameter(torch.tensor([[2.0, -4.0]], dtype=torch.float64))
    optimizer = AdamW().build([{"params": [parameter], "decay": True}])
    set_rates(optimizer, 0.5, 0.1)
    parameter.grad = torch.tensor([[3.0, -7.0]], dtype=torch.float64)
    optimizer.step()
    torch.testing.assert_close(parameter.detach(), torch.tensor([[1.4, -3.3]], dtype=torch.float64), rtol=1e-7, atol=0)


@pytest.mark.parametrize(("device", "fused"), [("cpu", True), ("meta", False)])
def test_adamw_is_fused_where_torch_has_that(device, fused):
    optimizer = AdamW().build(parameter_groups(Odd().to(device)))
    assert [group["fused"] for group in optimizer.param_groups] == [fused, fused]


def test_adamw_takes_what_torchs_takes():
    module = Odd()
    optimizer = AdamW().build([{"params": module.parameters(), "lr": 0.5}])
    assert len(optimizer.param_groups[0]["params"]) == len(list(module.parameters()))
