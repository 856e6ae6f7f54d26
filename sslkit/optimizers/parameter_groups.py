"""Parameter groups by weight decay and by learning rate scale."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn


def parameter_groups(
    module: nn.Module, decays_vectors: bool = False, lr_scales: Mapping[nn.Module, float] | None = None
) -> list[dict[str, Any]]:
    """Return the trainable parameters in groups: with and without weight decay, for each learning rate scale.

    Biases and one-dimensional parameters are not decayed unless ``decays_vectors``; position embeddings and class
    tokens are decayed, as in DINO's published code.

    Args:
        module: the student, or another module to train.
        decays_vectors: whether biases and one-dimensional parameters are decayed too.
        lr_scales: submodules whose learning rate is multiplied by a number; they are in separate groups.

    Returns:
        Groups with the keys ``params``, ``decay`` and ``lr_scale``, for `set_rates`; none is empty.
    """
    scale_of = {parameter: scale for part, scale in (lr_scales or {}).items() for parameter in part.parameters()}
    # Every group in a fixed order, whatever parameter comes first: checkpoints refer to parameters by position.
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for scale in (1.0, *dict.fromkeys(scale_of.values())):
        groups |= {(scale, True): [], (scale, False): []}
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            decay = decays_vectors or not (parameter.ndim <= 1 or name.endswith(".bias"))
            groups[scale_of.get(parameter, 1.0), decay].append(parameter)
    return [{"params": p, "decay": decay, "lr_scale": scale} for (scale, decay), p in groups.items() if p]


def set_rates(optimizer: torch.optim.Optimizer, lr: float, weight_decay: float) -> None:
    """Set the learning rate of every parameter group and the weight decay of the decayed ones, for one step.

    Groups without the keys ``decay`` and ``lr_scale`` that `parameter_groups` sets are decayed and use ``lr`` unscaled.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
        group["weight_decay"] = weight_decay if group.get("decay", True) else 0.0
