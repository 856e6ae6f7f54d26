"""Optimizers that a recipe can name, and the parameter groups they act on."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from sslkit.contracts import Optimizer
from sslkit.training.layerwise import RescaledSGD, Tensors

FUSED_ON = ("cpu", "cuda", "mps")
"""Types of devices on which torch takes AdamW's whole step in one kernel."""


class AdamW(Optimizer):
    """AdamW (arXiv:1711.05101), fused where torch has that. Biases and 1-d parameters are not decayed.

    Args:
        betas: decay rates of the two moments.
        eps: added to the root of the second moment.
    """

    published_lr: ClassVar[tuple[float, float] | None] = (0.000016, 0.002)
    published_by: ClassVar[str] = "DINO: 0.0005 for each 256 images, batches of 8 to 1024"

    def __init__(self, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        self.betas = betas
        self.eps = eps

    def build(self, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
        whole = [{**group, "params": list(group["params"])} for group in groups]
        parameters = [parameter for group in whole for parameter in group["params"]]
        fused = all(p.is_floating_point() and p.device.type in FUSED_ON for p in parameters)
        return torch.optim.AdamW(whole, betas=self.betas, eps=self.eps, fused=fused)


class SGD(Optimizer):
    """Stochastic gradient descent with momentum; weight decay is added to the gradient.

    Args:
        momentum: of the running sum of gradients, in [0, 1).
        decays_vectors: whether biases and one-dimensional parameters are decayed too (MoCo's published code; DINO's
            does not).

    Raises:
        ValueError: a momentum out of range.
    """

    published_lr: ClassVar[tuple[float, float] | None] = (0.03, 0.5)
    published_by: ClassVar[str] = "MoCo: 0.03 for 256 images; DINO's ResNet-50: 0.03 for each 256"

    def __init__(self, momentum: float = 0.9, decays_vectors: bool = True) -> None:
        if not 0 <= momentum < 1:
            raise ValueError(f"the momentum of SGD lies in [0, 1), not {momentum}")
        self.momentum = momentum
        self.decays_vectors = decays_vectors

    def build(self, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
        # Not torch's, which cannot skip a step on the device.
        return RescaledSGD(groups, self.momentum, self.rescale)

    def rescale(self, parameters: Tensors, gradients: Tensors, group: Mapping[str, Any]) -> Tensors:
        """Return the gradients decayed."""
        return torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])


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
