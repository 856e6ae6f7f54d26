"""Optimizers that a recipe can name, and the parameter groups they act on."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from sslkit.contracts import Optimizer

FUSED_ON = ("cpu", "cuda", "mps")
"""Types of devices on which torch takes AdamW's whole step in one kernel."""


class AdamW(Optimizer):
    """AdamW (arXiv:1711.05101), fused where torch has that. Biases and 1-d parameters are not decayed.

    Args:
        betas: decay rates of the two moments.
        eps: added to the root of the second moment.
    """

    def __init__(self, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.betas = betas
        self.eps = eps

    def build(self, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
        parameters = [parameter for group in groups for parameter in group["params"]]
        fused = all(p.is_floating_point() and p.device.type in FUSED_ON for p in parameters)
        return torch.optim.AdamW([dict(group) for group in groups], betas=self.betas, eps=self.eps, fused=fused)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum; weight decay is added to the gradient.

    Args:
        momentum: of the running sum of gradients, in [0, 1).
        decays_vectors: whether biases and one-dimensional parameters are decayed too (MoCo's published code; DINO's
            does not).

    Raises:
        ValueError: a momentum out of range.
    """

    def __init__(self, momentum: float = 0.9, decays_vectors: bool = True) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"the momentum of SGD lies in [0, 1), not {momentum}")
        self.momentum = momentum
        self.decays_vectors = decays_vectors

    def build(self, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
        return torch.optim.SGD([dict(group) for group in groups], momentum=self.momentum)


def parameter_groups(module: nn.Module, decays_vectors: bool = False) -> list[dict[str, Any]]:
    """Return the trainable parameters in two groups, the decayed and the others.

    Biases and one-dimensional parameters are not decayed unless ``decays_vectors``; position embeddings and class
    tokens are (DINO's published code).
    """
    decayed: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            is_vector = parameter.ndim <= 1 or name.endswith(".bias")
            (others if is_vector and not decays_vectors else decayed).append(parameter)
    groups = [{"params": decayed, "decay": True}, {"params": others, "decay": False}]
    return [group for group in groups if group["params"]]


def set_rates(optimizer: torch.optim.Optimizer, lr: float, weight_decay: float) -> None:
    """Set this step's learning rate in every group and its weight decay in the decayed ones."""
    for group in optimizer.param_groups:
        group["lr"] = lr
        group["weight_decay"] = weight_decay if group["decay"] else 0.0
