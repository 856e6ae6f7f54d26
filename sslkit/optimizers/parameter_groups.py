"""Group parameters by weight decay and by their share of the learning rate."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def parameter_groups(
    module: nn.Module, decays_vectors: bool = False, lr_scales: Mapping[nn.Module, float] | None = None
) -> list[dict[str, Any]]:
    """Return the trainable parameters in two groups, the decayed and the others.

    Biases and one-dimensional parameters are not decayed unless ``decays_vectors``; position embeddings and class
    tokens are (DINO's published code).

    Args:
        module: what learns.
        decays_vectors: whether biases and one-dimensional parameters are decayed too.
        lr_scales: parts of the module whose learning rate is multiplied by a number; they have groups of their own.
    """
    scale_of = {parameter: scale for part, scale in (lr_scales or {}).items() for parameter in part.parameters()}
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for scale in (1.0, *dict.fromkeys(scale_of.values())):
        groups |= {(scale, True): [], (scale, False): []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = decays_vectors or not (parameter.ndim <= 1 or name.endswith(".bias"))
            groups[scale_of.get(parameter, 1.0), decay].append(parameter)
    return [{"params": p, "decay": decay, "lr_scale": scale} for (scale, decay), p in groups.items() if p]


def set_rates(optimizer: torch.optim.Optimizer, lr: float, weight_decay: float) -> None:
    """Set this step's learning rate in every group and its weight decay in the decayed ones.

    Groups that do not say whether they are decayed, and what lr is multiplied by (``parameter_groups`` does), are
    decayed and take lr as it is.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
        group["weight_decay"] = weight_decay if group.get("decay", True) else 0.0
