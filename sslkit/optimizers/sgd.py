"""The SGD optimizer."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from sslkit.contracts import Optimizer
from sslkit.optimizers.rescaled_sgd import RescaledSGD, Tensors
from sslkit.schedules import check_range


class SGD(Optimizer):
    """Stochastic gradient descent with momentum, and weight decay added to the gradient.

    Args:
        momentum: factor of the running sum of gradients, in [0, 1).
        decays_vectors: whether biases and one-dimensional parameters are decayed too (in MoCo's published code, not
            in DINO's).

    Raises:
        ValueError: ``momentum`` is out of range.
    """

    published_lr: ClassVar[tuple[float, float] | None] = (0.03, 0.5)
    published_by: ClassVar[str] = "MoCo: 0.03 for 256 images; DINO's ResNet-50: 0.03 for each 256"

    def __init__(self, momentum: float = 0.9, decays_vectors: bool = True) -> None:
        check_range("SGD", "momentum", momentum, "[0, 1)")
        self.momentum = momentum
        self.decays_vectors = decays_vectors

    def build(self, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
        # Not torch's: its fused SGD can skip a step on the device, but where that is the first, it leaves the momentum
        # uninitialised.
        return RescaledSGD(groups, self.momentum, self.rescale)

    def rescale(self, parameters: Tensors, gradients: Tensors, group: Mapping[str, Any]) -> Tensors:
        """Return the gradients with weight decay added."""
        return torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
