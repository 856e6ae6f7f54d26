"""Communication between processes; in a single process every function is the identity."""

import os
from collections.abc import Mapping
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

Thing = TypeVar("Thing")


def world_size() -> int:
    """Return the number of processes that train together."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Return this process's number, from 0."""
    return dist.get_rank() if world_size() > 1 else 0


COUNTS = {
    "WORLD_SIZE": "the launcher",
    "SLURM_STEP_NUM_TASKS": "srun",
    "OMPI_COMM_WORLD_SIZE": "mpirun",
    "PMI_SIZE": "mpiexec",
}
"""Where launchers say how many processes they start."""


def why_alone(environment: Mapping[str, str] = os.environ) -> str | None:
    """Return why this process trains alone although several seem to have been asked for; None where all is well.

    Args:
        environment: of this process.
    """
    if dist.is_available() and dist.is_initialized():
        return None
    # It says so for several processes alone, and starts one where it finds no GPUs.
    if {"ACCELERATE_MIXED_PRECISION", "MASTER_PORT"} <= {*environment}:
        return "accelerate launch was asked for several processes that train together, but starts one without GPUs"
    for name, launcher in COUNTS.items():
        if environment.get(name, "1") not in ("0", "1"):
            return f"{launcher} started {environment[name]} processes that do not train together"
    return None


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Return the sum of every process's tensor, without gradient; the shapes must agree."""
    if world_size() == 1:
        return tensor
    total = tensor.detach().clone()
    dist.all_reduce(total)
    return total


def max_over_processes(tensor: Tensor) -> Tensor:
    """Return the element-wise maximum of every process's tensor, without gradient."""
    if world_size() == 1:
        return tensor
    largest = tensor.detach().clone()
    dist.all_reduce(largest, op=dist.ReduceOp.MAX)
    return largest


def mean_over_processes(tensor: Tensor) -> Tensor:
    """Return the mean of every process's tensor, without gradient; each process counts the same."""
    return sum_over_processes(tensor) / world_size()


def from_main(thing: Thing) -> Thing:
    """Return what the main process has, on every process; any picklable thing."""
    if world_size() == 1:
        return thing
    things = [thing]
    dist.broadcast_object_list(things)
    return things[0]


def take_from_main(tensor: Tensor) -> None:
    """Write into every process's tensor what the main process has there; the shapes must agree."""
    if world_size() > 1:
        dist.broadcast(tensor, 0)


def wait_for_all() -> None:
    """Wait until every process is here."""
    if world_size() > 1:
        dist.barrier()


def gather_over_processes(tensor: Tensor, dim: int = 0) -> Tensor:
    """Return every process's tensor joined along ``dim`` in rank order, without gradient.

    The shapes must agree.
    """
    if world_size() == 1:
        return tensor
    parts = [torch.empty_like(tensor) for _ in range(world_size())]
    dist.all_gather(parts, tensor.detach().contiguous())
    return torch.cat(parts, dim)
