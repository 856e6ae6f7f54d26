"""Snapshots of tensors, to be restored."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

READ_AT_ONCE = ("cpu",)
"""Types of devices whose numbers are read without a wait."""


class TensorSnapshot:
    """Copies of tensors, to be restored if a step is skipped.

    Args:
        tensors: gives them, now and later.
    """

    def __init__(self, tensors: Callable[[], Iterable[Tensor]]) -> None:
        self.tensors = tensors
        self.copies = [tensor.detach().clone() for tensor in tensors()]

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the tensors."""
        for tensor, copy in zip(self.tensors(), self.copies, strict=True):
            tensor.copy_(copy)

    @torch.no_grad()
    def restore_if(self, flags: Tensor) -> None:
        """Restore the tensors where a flag is 1, without waiting for their device."""
        sound = flags.amax() == 0
        if is_read_at_once(flags) and sound:
            return
        for tensor, copy in zip(self.tensors(), self.copies, strict=True):
            torch.where(sound, tensor, copy, out=tensor)


def is_read_at_once(tensor: Tensor) -> bool:
    """Return whether a number of this tensor is read without a wait for its device."""
    return tensor.device.type in READ_AT_ONCE
