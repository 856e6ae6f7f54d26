"""SGD with momentum on rescaled gradients, the torch optimizer of SGD, LARS and LARC."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from sslkit.snapshot import TensorSnapshot

Tensors = list[Tensor] | tuple[Tensor, ...]
Rescale = Callable[[Tensors, Tensors, Mapping[str, Any]], Tensors]
"""A function from parameters, gradients and their group to the updates that momentum accumulates."""


class RescaledSGD(torch.optim.Optimizer):
    """SGD with momentum on rescaled gradients; parameters without gradient keep their value and their momentum.

    Like torch's fused optimizers it skips a step on the device, without a wait for it, if its attribute ``found_inf``
    is 1.

    Args:
        groups: parameter groups, as from `parameter_groups`; ``lr`` and ``weight_decay`` are set before each step.
        momentum: factor of the running sum of updates, which starts at 0.
        rescale: returns the updates of gradients.
    """

    def __init__(self, groups: Sequence[Mapping[str, Any]], momentum: float, rescale: Rescale) -> None:
        defaults = {"lr": 1e-3, "weight_decay": 0.0, "decay": True, "momentum": momentum}
        super().__init__([dict(group) for group in groups], defaults)
        self.rescale = rescale

    _step_supports_amp_scaling = True
    """Declares to torch's GradScaler that ``step`` reads ``found_inf`` and ``grad_scale``, as fused optimizers do."""

    def __getstate__(self) -> dict[str, Any]:
        # torch's Optimizer copies and pickles its own three attributes only.
        return super().__getstate__() | {"rescale": self.rescale}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Update the parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            parameters = [p for p in group["params"] if p.grad is not None]
            if parameters:
                self._move(parameters, group)
        return loss

    def _move(self, parameters: Tensors, group: Mapping[str, Any]) -> None:
        gradients: Tensors = [p.grad for p in parameters if p.grad is not None]
        if (scale := getattr(self, "grad_scale", None)) is not None:
            gradients = torch._foreach_div(gradients, scale)
        sums = [self._sum(p) for p in parameters]
        # Written and then restored, since a branch on a flag on the GPU would wait for it.
        skipped: Tensor | None = getattr(self, "found_inf", None)
        kept = TensorSnapshot(lambda: [*parameters, *sums] if skipped is not None else [])
        torch._foreach_mul_(sums, group["momentum"])
        torch._foreach_add_(sums, self.rescale(parameters, gradients, group))
        torch._foreach_add_(parameters, sums, alpha=-group["lr"])
        if skipped is not None:
            kept.restore_if(skipped)

    def _sum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def norms(tensors: Tensors) -> Tensor:
    """Return the l2 norm of each tensor, (len(tensors),)."""
    return torch.stack(torch._foreach_norm(tensors))
