"""The LARC optimizer: layer-wise adaptive learning rates, as in SwAV's published code."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from sslkit.contracts import Optimizer
from sslkit.optimizers.rescaled_sgd import RescaledSGD, Tensors, norms
from sslkit.schedules import check_range


class LARC(Optimizer):
    """LARC without clipping (arXiv:1708.03888), as SwAV's published code takes it from apex.

        rate      = trust * norm(parameter) / (norm(gradient) + weight_decay * norm(parameter) + eps)
        update    = rate * (gradient + weight_decay * parameter)         gradient if one of the norms is 0
        sum       = momentum * sum + update
        parameter = parameter - lr * sum

    All parameters are decayed and rescaled, biases and those of norm layers included.

    Args:
        momentum: factor of the running sum of updates, in [0, 1).
        trust: norm of the update over norm of the parameter at a learning rate of 1, without momentum; above 0.
        eps: added to the denominator of the rate.

    Raises:
        ValueError: ``momentum`` or ``trust`` is out of range.
    """

    decays_vectors = True
    published_lr: ClassVar[tuple[float, float] | None] = (0.6, 4.8)
    published_by: ClassVar[str] = "SwAV: 0.6 for 256 images, 4.8 for 4096"

    def __init__(self, momentum: float = 0.9, trust: float = 1e-3, eps: float = 1e-8) -> None:
        check_range("LARC", "momentum", momentum, "[0, 1)")
        check_range("LARC", "trust", trust, "(0, inf)")
        check_range("LARC", "eps", eps, "[0, inf)")
        self.momentum = momentum
        self.trust = trust
        self.eps = eps

    def build(self, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
        return RescaledSGD(groups, self.momentum, self.rescale)

    def rescale(self, parameters: Tensors, gradients: Tensors, group: Mapping[str, Any]) -> Tensors:
        """Return the gradients with weight decay added, scaled by the rate of each parameter."""
        decay = group["weight_decay"]
        of_parameters, of_gradients = norms(parameters), norms(gradients)
        rates = self.trust * of_parameters / (of_gradients + decay * of_parameters + self.eps)
        # apex leaves a gradient as it is where a norm is 0. A parameter of 0 has no decay, so a rate of 1 does that;
        # a gradient of 0 must not become the decay, so its rate is 0.
        rates = torch.where(of_parameters > 0, rates, 1.0)
        rates = torch.where(of_gradients > 0, rates, 0.0)
        updates = torch._foreach_add(gradients, parameters, alpha=decay)
        return torch._foreach_mul(updates, list(rates.unbind()))
