"""Snapshots of tensors, to undo a step."""

from collections.abc import Callable, Iterable

import torch
from torch import Tensor

READ_AT_ONCE = ("cpu",)
"""Device types from which the host reads a value without synchronisation."""


class TensorSnapshot:
    """Copies of tensors, restored in place if a step is skipped.

    Args:
        tensors: returns the tensors, now and again when they are restored. A function, since an update may put a wider
            tensor in place of a buffer (`Centering.update` of float64 logits).
    """

    def __init__(self, tensors: Callable[[], Iterable[Tensor]]) -> None:
        self.tensors = tensors
        self.copies = [tensor.detach().clone() for tensor in tensors()]

    @torch.no_grad()
    def restore(self) -> None:
        """Restore the tensors.

        Raises:
            ValueError: there are more or fewer tensors than before.
        """
        for tensor, copy in zip(self.tensors(), self.copies, strict=True):
            tensor.copy_(copy)

    @torch.no_grad()
    def restore_if(self, flags: Tensor) -> None:
        """Restore the tensors if a flag is 1, without waiting for their device.

        Args:
            flags: (N,) of 0 and 1, on the device of the tensors.
        """
        sound = flags.amax() == 0
        if is_read_at_once(flags) and sound:
            return
        for tensor, copy in zip(self.tensors(), self.copies, strict=True):
            # Not a product with the flag: 0 times NaN is NaN.
            torch.where(sound, tensor, copy, out=tensor)


def is_read_at_once(tensor: Tensor) -> bool:
    """Return whether the host reads a value of this tensor without synchronisation."""
    return tensor.device.type in READ_AT_ONCE
