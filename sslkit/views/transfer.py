"""Copy the tensors drawn on the host for a batch to its device in one transfer."""

from collections.abc import Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor
from torch.utils._pytree import tree_flatten, tree_unflatten

Tree = TypeVar("Tree")


def carry(tree: Tree, device: torch.device) -> Tree:
    """Copy a tree of CPU tensors to a device, all of them in one transfer that the host does not wait for.

    Many small copies would each wait for the stream, because their memory is not pinned, and no step could overlap
    with the views of the next batch.

    Args:
        tree: nested lists, tuples and named tuples; leaves that are not tensors stay as they are. Integers must be
            below 2^53, or 2^24 for a device without float64 (MPS), to be exact.
        device: the device of the batch; for the CPU the same tree is returned. Dtypes are kept, except that float64
            becomes float32 on a device without it.
    """
    if device.type == "cpu":
        return tree
    leaves, structure = tree_flatten(tree)
    tensors = [leaf for leaf in leaves if isinstance(leaf, Tensor)]
    if not tensors:
        return tree
    packed = pack(tensors, torch.float32 if device.type == "mps" else torch.float64)
    # Only a copy from pinned memory is asynchronous.
    packed = packed.pin_memory() if device.type == "cuda" else packed
    moved = unpack(packed.to(device, non_blocking=True), tensors)
    return tree_unflatten([next(moved) if isinstance(leaf, Tensor) else leaf for leaf in leaves], structure)


def pack(tensors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Return the values of all tensors, flattened and concatenated, (N,) of one dtype."""
    return torch.cat([tensor.reshape(-1).to(dtype) for tensor in tensors])


def unpack(packed: Tensor, like: Sequence[Tensor]) -> Iterator[Tensor]:
    """Yield packed tensors in the shapes and dtypes of ``like``; floating dtypes wider than the row take the row's."""
    for piece, tensor in zip(packed.split([tensor.numel() for tensor in like]), like):
        narrow = tensor.is_floating_point() and tensor.element_size() > packed.element_size()
        yield piece.view(tensor.shape).to(packed.dtype if narrow else tensor.dtype)
