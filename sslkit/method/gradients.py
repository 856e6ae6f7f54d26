"""What happens to gradients between the backward pass and the optimizer: clipping, and parts that stay frozen."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import nn

from sslkit.errors import RecipeError, UnknownName
from sslkit.method.branch import Branch
from sslkit.method.executor import Executor

ClipPer = Literal["parameter", "all"]
"""What is bound to the norm: each parameter by itself, or all together."""


@dataclass(frozen=True)
class Clip:
    """A bound on gradients.

    Args:
        norm: the largest l2 norm, above 0.
        per: ``parameter`` bounds each parameter tensor by itself (DINO's published code), ``all`` their joint norm.

    Raises:
        RecipeError: the norm is not above 0.
        UnknownName: another word for ``per``.
    """

    norm: float
    per: ClipPer = "parameter"

    def __post_init__(self) -> None:
        if not self.norm > 0:
            raise RecipeError(f"the norm of Clip is above 0, not {self.norm}")
        if self.per not in get_args(ClipPer):
            raise UnknownName("per of Clip", self.per, get_args(ClipPer))

    def __call__(self, parameters: Iterable[nn.Parameter], executor: Executor | None = None) -> None:
        """Scale the gradients in place by norm / (their norm + 1e-6) where that is below 1.

        Gradients whose norm is not finite become not a number, not 0: such a step must not count.
        """
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        if not gradients:
            return
        norms = (executor or Executor()).gradient_norms(gradients)
        if self.per == "all":
            norms = [torch.stack(norms).norm()] * len(norms)
        # 0 * infinity is not a number.
        torch._foreach_mul_(gradients, [(self.norm / (norm + 1e-6)).clamp_max(1.0) + 0 * norm for norm in norms])


def clip_and_freeze(
    student: Branch, clip: Clip | None, frozen: Iterable[str], executor: Executor | None = None
) -> None:
    """Clip the student's gradients, then take away those of frozen parts.

    The order is that of DINO's published code, in which the last layer counts in nobody's norm but its own.

    Args:
        student: after its backward pass.
        clip: the bound, or None.
        frozen: names of ``Branch.parts`` whose gradients become None, so that neither moments nor weight decay act.
        executor: of the step, which knows the norms of gradients; None is one process.

    Raises:
        UnknownName: a part that the student does not have.
    """
    if clip is not None:
        clip(student.parameters(), executor)
    for part in frozen:
        for parameter in student.part(part).parameters():
            parameter.grad = None
