"""LARC: layer-wise adaptive learning rates, as in SwAV's published code."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from sslkit.contracts import Optimizer
from sslkit.optimizers.rescaled_sgd import RescaledSGD, Tensors, check_layerwise, norms


class LARC(Optimizer):
    """Layer-wise adaptive rates without clipping, arXiv:1708.03888, as apex computes them for SwAV's published code.

        rate      = trust * norm(parameter) / (norm(gradient) + weight_decay * norm(parameter) + eps)
        update    = rate * (gradient + weight_decay * parameter)         the gradient where one of the norms is 0
        sum       = momentum * sum + update
        parameter = parameter - lr * sum

    All parameters are treated alike, biases and norms included.

    Args:
        momentum: of the running sum, in [0, 1).
        trust: step length over parameter length at a learning rate of 1, without momentum; above 0.
        eps: keeps the rate finite.

    Raises:
        ValueError: momentum or trust out of range.
    """

    decays_vectors = True
    published_lr: ClassVar[tuple[float, float] | None] = (0.6, 4.8)
    published_by: ClassVar[str] = "SwAV: 0.6 for 256 images, 4.8 for 4096"

    def __init__(self, momentum: float = 0.9, trust: float = 1e-3, eps: float = 1e-8) -> None:
        check_layerwise("LARC", momentum, trust)
        self.momentum = momentum
        self.trust = trust
        self.eps = eps

    def build(self, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
        return RescaledSGD(groups, self.momentum, self.rescale)

    def rescale(self, parameters: Tensors, gradients: Tensors, group: Mapping[str, Any]) -> Tensors:
        """Return the gradients decayed and scaled."""
        decay = group["weight_decay"]
        of_parameters, of_gradients = norms(parameters), norms(gradients)
        rates = self.trust * of_parameters / (of_gradients + decay * of_parameters + self.eps)
        rates = torch.where(of_parameters > 0, rates, 1.0)
        # A gradient of 0 is not decayed either: what is left of the sum is 0.
        rates = torch.where(of_gradients > 0, rates, 0.0)
        updates = torch._foreach_add(gradients, parameters, alpha=decay)
        return torch._foreach_mul(updates, list(rates.unbind()))
