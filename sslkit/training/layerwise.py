"""Optimizers whose step is proportional to the length of each parameter tensor, for large batches."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from sslkit.contracts import Optimizer
from sslkit.snapshot import Kept

Tensors = list[Tensor] | tuple[Tensor, ...]
Rescale = Callable[[Tensors, Tensors, Mapping[str, Any]], Tensors]
"""(parameters, gradients, their group) to what momentum sums up."""


class LARS(Optimizer):
    """Layer-wise adaptive rates, arXiv:1708.03888, as BYOL's published code has them.

        update    = gradient + weight_decay * parameter
        update    = update * trust * norm(parameter) / norm(update)      1 where one of the norms is 0
        sum       = momentum * sum + update
        parameter = parameter - lr * sum

    Biases and one-dimensional parameters take their gradient as it is: no weight decay, no rate of their own.

    Args:
        momentum: of the running sum, in [0, 1).
        trust: step length over parameter length at a learning rate of 1, without momentum; above 0.

    Raises:
        ValueError: momentum or trust out of range.
    """

    published_lr: ClassVar[tuple[float, float] | None] = (0.2, 7.2)
    published_by: ClassVar[str] = "BYOL: 0.2 to 0.45 for each 256 images"

    def __init__(self, momentum: float = 0.9, trust: float = 1e-3) -> None:
        _check("LARS", momentum, trust)
        self.momentum = momentum
        self.trust = trust

    def build(self, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
        return RescaledSGD(groups, self.momentum, self.rescale)

    def rescale(self, parameters: Tensors, gradients: Tensors, group: Mapping[str, Any]) -> Tensors:
        """Return the gradients decayed and scaled, where the group is decayed."""
        if not group["decay"]:
            return gradients
        updates = torch._foreach_add(gradients, parameters, alpha=group["weight_decay"])
        of_parameters, of_updates = _norms(parameters), _norms(updates)
        ratios = torch.where((of_parameters > 0) & (of_updates > 0), self.trust * of_parameters / of_updates, 1.0)
        return torch._foreach_mul(updates, list(ratios.unbind()))


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
        _check("LARC", momentum, trust)
        self.momentum = momentum
        self.trust = trust
        self.eps = eps

    def build(self, groups: Sequence[Mapping[str, Any]]) -> torch.optim.Optimizer:
        return RescaledSGD(groups, self.momentum, self.rescale)

    def rescale(self, parameters: Tensors, gradients: Tensors, group: Mapping[str, Any]) -> Tensors:
        """Return the gradients decayed and scaled."""
        decay = group["weight_decay"]
        of_parameters, of_gradients = _norms(parameters), _norms(gradients)
        rates = self.trust * of_parameters / (of_gradients + decay * of_parameters + self.eps)
        rates = torch.where(of_parameters > 0, rates, 1.0)
        # A gradient of 0 is not decayed either: what is left of the sum is 0.
        rates = torch.where(of_gradients > 0, rates, 0.0)
        updates = torch._foreach_add(gradients, parameters, alpha=decay)
        return torch._foreach_mul(updates, list(rates.unbind()))


class RescaledSGD(torch.optim.Optimizer):
    """SGD with momentum on rescaled gradients; parameters without gradient are left alone, their sums too.

    It skips a step on the device as torch's fused optimizers do: where its attribute ``found_inf`` is 1.

    Args:
        groups: parameter groups; ``lr`` and ``weight_decay`` are set before each step, ``decay`` says whether the
            group is decayed.
        momentum: of the running sum, which starts at 0.
        rescale: gradients to what is summed up.
    """

    def __init__(self, groups: Sequence[Mapping[str, Any]], momentum: float, rescale: Rescale) -> None:
        defaults = {"lr": 1e-3, "weight_decay": 0.0, "decay": True, "momentum": momentum}
        super().__init__([dict(group) for group in groups], defaults)
        self.rescale = rescale

    _step_supports_amp_scaling = True
    """What torch's fused optimizers and GradScaler call the knowledge of ``found_inf`` and ``grad_scale``."""

    def __getstate__(self) -> dict[str, Any]:
        # torch copies and pickles its own three attributes alone.
        return super().__getstate__() | {"rescale": self.rescale}

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Move the parameters that have a gradient."""
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
        skipped: Tensor | None = getattr(self, "found_inf", None)
        kept = Kept(lambda: [*parameters, *sums] if skipped is not None else [])
        torch._foreach_mul_(sums, group["momentum"])
        torch._foreach_add_(sums, self.rescale(parameters, gradients, group))
        torch._foreach_add_(parameters, sums, alpha=-group["lr"])
        if skipped is not None:
            kept.put_back_if(skipped)

    def _sum(self, parameter: Tensor) -> Tensor:
        state = self.state[parameter]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(parameter)
        buffer: Tensor = state["momentum_buffer"]
        return buffer


def _norms(tensors: Tensors) -> Tensor:
    return torch.stack(torch._foreach_norm(tensors))


def _check(name: str, momentum: float, trust: float) -> None:
    if not 0 <= momentum < 1:
        raise ValueError(f"the momentum of {name} lies in [0, 1), not {momentum}")
    if trust <= 0:
        raise ValueError(f"the trust of {name} is above 0, not {trust}")
