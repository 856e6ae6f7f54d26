"""Tensors as they were, to be put back."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

READ_AT_ONCE = ("cpu",)
"""Types of devices whose numbers are read without a wait."""


class TensorSnapshot:
    """Tensors as they are now, to be put back if the step does not count.

    Args:
        tensors: gives them, now and later.
    """

    def __init__(self, tensors: Callable[[], Iterable[Tensor]]) -> None:
        self.tensors = tensors
        self.copies = [tensor.detach().clone() for tensor in tensors()]

    @torch.no_grad()
    def restore(self) -> None:
        """Put them back."""
        for tensor, copy in zip(self.tensors(), self.copies, strict=True):
            tensor.copy_(copy)

    @torch.no_grad()
    def restore_if(self, flags: Tensor) -> None:
        """Put them back where a flaw is 1."""
        sound = flags.amax() == 0
        if is_read_at_once(flags) and sound:
            return
        for tensor, copy in zip(self.tensors(), self.copies, strict=True):
            torch.where(sound, tensor, copy, out=tensor)


def is_read_at_once(tensor: Tensor) -> bool:
    """Return whether a number of this tensor is read without a wait for its device."""
    return tensor.device.type in READ_AT_ONCE
