"""Small modules that optimizers move."""

import pytest
import torch
from torch import nn

from sslkit.optimizers.parameter_groups import parameter_groups, set_rates


class Odd(nn.Module):
    """Parameters of every rank, one of them a bias with two dimensions, one frozen."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.norm = nn.LayerNorm(4)
        self.pos_embed = nn.Parameter(torch.randn(1, 2, 4))
        self.cls_token = nn.Parameter(torch.randn(1, 1, 4))
        self.scale = nn.Parameter(torch.tensor(2.0))
        self.table = nn.Module()
        self.table.bias = nn.Parameter(torch.randn(2, 2))
        self.frozen = nn.Parameter(torch.randn(4, 4), requires_grad=False)


def built(optimizer, net):
    return optimizer.build(parameter_groups(net, optimizer.decays_vectors))


def one_step(optimizer, parameter, gradient, name, decay=0.5):
    parameter = nn.Parameter(torch.tensor(parameter, dtype=torch.float64))
    module = nn.Module()
    module.register_parameter(name, parameter)
    optimizer = built(optimizer, module)
    set_rates(optimizer, 2.0, decay)
    for _ in range(2):
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        yield parameter.tolist()


def approx(numbers):
    return pytest.approx(numbers, rel=1e-12)
