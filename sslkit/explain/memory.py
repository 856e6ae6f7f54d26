"""Estimate the memory of a training step on fake tensors."""

import copy
import weakref
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sslkit.contracts import Optimizer, ViewMaker
from sslkit.errors import NotSupported
from sslkit.method.executor import Executor
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates
from sslkit.types import Views

DTYPES = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Memory:
    """Bytes of tensors in a training step.

    Args:
        networks: weights, buffers and the collapse operator's state, of student and teacher.
        optimizer: its state.
        peak: the most that exists at a time: all of the above, gradients, activations and intermediate results.
    """

    networks: int
    optimizer: int
    peak: int


def estimate_memory(
    model: StudentTeacher,
    maker: ViewMaker,
    optimizer: Optimizer,
    num_images: int,
    accumulation: int = 1,
    precision: str = "fp32",
) -> Memory:
    """Count the tensors of one training step on tensors that have a shape and no content.

    The step is the real one, the first of a run, with the CPU's kernels; a part that asks for a number in a tensor
    gets 0. What is no tensor is left out: the scratch space of kernels, what the allocator keeps, gradients in exchange
    between processes, loaded libraries. docs/speed.md compares with measured peaks.

    Args:
        model: is left as it is.
        maker: says what views there are.
        optimizer: as a recipe gives it.
        num_images: of this process in a step.
        accumulation: micro-batches.
        precision: fp32, bf16 or fp16.

    Raises:
        NotSupported: a part makes tensors whose shape depends on numbers, or cannot work without any.
    """
    mode, count = FakeTensorMode(), _Count()
    try:
        model = copy.deepcopy(model, {id(tensor): mode.from_tensor(tensor) for tensor in _state_of(model)})
        with mode:
            views = Views.of([torch.empty(num_images, maker.channels, s, s) for s in maker.sizes], maker.num_globals)
            networks = count.add(_state_of(model))
            stepper = optimizer.build(parameter_groups(model.student, optimizer.decays_vectors))
            states = count.add(_states_of(stepper))
            count.add(group.images for group in views.groups)
            with count:
                train_step(model, views, stepper, accumulation=accumulation, executor=_Precise(precision))
    except Exception as error:
        raise NotSupported(f"a part cannot work on tensors without numbers ({type(error).__name__})") from error
    return Memory(networks, states, count.peak)


class _Count(TorchDispatchMode):
    """Counts the bytes of all tensors that exist, each storage once; whoever asks for a number gets 0."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._sizes: dict[int, int] = {}
        self._now = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        # Fake tensors have no numbers to read; any number will do for a count of bytes.
        if function is torch.ops.aten._local_scalar_dense.default:
            return 0
        result = function(*arguments, **(named or {}))
        self.add(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result

    def add(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors from now until they are gone, and return the bytes that they added."""
        before = self._now
        for tensor in tensors:
            storage = tensor.untyped_storage()
            if storage._cdata not in self._sizes:
                self._sizes[storage._cdata] = storage.nbytes()
                self._now += storage.nbytes()
                weakref.finalize(storage, self._remove, storage._cdata)
        self.peak = max(self.peak, self._now)
        return self._now - before

    def _remove(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


class _Precise(Executor):
    """One process in a named precision."""

    def __init__(self, precision: str) -> None:
        self.dtype = DTYPES[precision]

    def autocast(self) -> AbstractContextManager[Any]:
        return nullcontext() if self.dtype is None else torch.autocast("cpu", self.dtype)


def _state_of(model: StudentTeacher) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _states_of(stepper: torch.optim.Optimizer) -> Iterator[Tensor]:
    """Take a first step, on gradients of 0, and return what the optimizer keeps from then on."""
    parameters = [parameter for group in stepper.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    set_rates(stepper, lr=0.0, weight_decay=0.0)
    stepper.step()
    stepper.zero_grad()
    return (kept for state in stepper.state.values() for kept in state.values() if isinstance(kept, Tensor))
