"""The LARS optimizer: layer-wise adaptive learning rates, as in BYOL's published code."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch

from sslkit.contracts import Optimizer
from sslkit.optimizers.rescaled_sgd import RescaledSGD, Tensors, norms
from sslkit.schedules import check_range


class LARS(Optimizer):
    """LARS (arXiv:1708.03888), as in BYOL's published code.

        update    = gradient + weight_decay * parameter
        update    = update * trust * norm(parameter) / norm(update)      unchanged if one of the norms is 0
        sum       = momentum * sum + update
        parameter = parameter - lr * sum

    The update of biases and one-dimensional parameters is their gradient, without weight decay and rescaling.

    Args:
        momentum: factor of the running sum of updates, in [0, 1).
        trust: norm of the update over norm of the parameter at a learning rate of 1, without momentum; above 0.

    Raises:
        ValueError: ``momentum`` or ``trust`` is out of range.
    """

    published_lr: ClassVar[tuple[float, float] | None] = (0.2, 7.2)
    published_by: ClassVar[str] = "BYOL: 0.2 to 0.45 for each 256 images"

    def __init__(self, momentum: float = 0.9, trust: float = 1e-3) -> None:
        check_range("LARS", "momentum", momentum, "[0, 1)")
        check_range("LARS", "trust", trust, "(0, inf)")
        self.momentum = momentum
        self.trust = trust

    def build(self, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
        return RescaledSGD(groups, self.momentum, self.rescale)

    def rescale(self, parameters: Tensors, gradients: Tensors, group: Mapping[str, Any]) -> Tensors:
        """Return the gradients, those of a decayed group with weight decay added and scaled by their ratio."""
        if not group["decay"]:
            return gradients
        # The decay first: BYOL's ratio is that of the decayed gradient, unlike that of `LARC`.
        updates = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        of_parameters, of_updates = norms(parameters), norms(updates)
        ratios = torch.where((of_parameters > 0) & (of_updates > 0), self.trust * of_parameters / of_updates, 1.0)
        return torch._foreach_mul(updates, list(ratios.unbind()))
