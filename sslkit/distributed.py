"""Communication between processes; in a single process every function is the identity."""

import os
from collections.abc import Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

T = TypeVar("T")


def world_size() -> int:
    """Return the number of processes in the process group, 1 without one."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


COUNTS = {
    "WORLD_SIZE": "the launcher",
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpiexec",
}
"""Environment variables with the number of processes that a launcher started, and the launcher."""


def why_alone(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return why this process has no process group although a launcher was used; None if there is no sign of that.

    Args:
        environment: environment variables of this process.
    """
    if dist.is_available() and dist.is_initialized():
        return None
    # accelerate launch sets both for several processes only; where it finds no GPUs, it then starts a single one.
    if {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"} <= {*environment}:
        return "accelerate launch was asked for several processes that train together, but starts one without GPUs"
    for name, launcher in COUNTS.items():
        if environment.get(name, "1") not in ("0", "1"):
            return f"{launcher} started {environment[name]} processes that do not train together"
    return None


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Return the element-wise sum over processes, without gradient; the shapes must agree."""
    if world_size() == 1:
        return tensor
    # all_reduce writes in place.
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


def max_over_processes(tensor: Tensor) -> Tensor:
    """Return the element-wise maximum over processes, without gradient; the shapes must agree."""
    if world_size() == 1:
        return tensor
    largest = tensor.detach().clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def mean_over_processes(tensor: Tensor) -> Tensor:
    """Return the element-wise mean over processes, equally weighted, without gradient; the shapes must agree."""
    return sum_over_processes(tensor) / world_size()


def from_main(value: T) -> T:
    """Return the value of the process of rank 0, on every process; any value that can be pickled."""
    if world_size() == 1:
        return value
    values = [value]
    dist.broadcast_object_list(values)
    return values[0]


def take_from_main(tensor: Tensor) -> None:
    """Copy the tensor of the process of rank 0 into that of every process; the shapes must agree."""
    if world_size() > 1:
        dist.broadcast(tensor, 0)


def wait_for_all() -> None:
    """Wait until every process has called this."""
    if world_size() > 1:
        dist.barrier()


def gather_over_processes(tensor: Tensor, dim: int = 0) -> Tensor:
    """Return the tensors of all processes concatenated along ``dim`` in the order of ranks, without gradient.

    The shapes must agree: the batch is cut into equal shares.
    """
    if world_size() == 1:
        return tensor
    gathered = [torch.empty_like(tensor) for _ in range(world_size())]
    # NCCL refuses tensors that are not contiguous.
    dist.all_gather(gathered, tensor.detach().contiguous())
    return torch.cat(gathered, dim)
