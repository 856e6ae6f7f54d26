"""Small networks whose parameters are looked at and moved."""

import torch
from torch import nn


def network(dtype=torch.float64):
    return nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)).to(dtype)


def values(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def differ(module, others):
    return [name for name, parameter in module.named_parameters() if not torch.equal(parameter, others[name])]


def move(module):
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(torch.randn_like(parameter))
