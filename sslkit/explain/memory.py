"""Memory of a training step, measured on fake tensors: shapes and dtypes without storage."""

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
    """Bytes of the tensors of one process in a training step.

    Args:
        networks: parameters and buffers of student and teacher, and the state of the collapse operator.
        optimizer: state of the optimizer, such as AdamW's two moments.
        peak: the largest sum at any time: the above, views, gradients, activations and intermediate results.
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
    """Return the memory of one training step, by running `train_step` on fake tensors.

    The operations are those of a CPU; ``tensor.item()`` returns 0. Not counted: scratch space of kernels, memory that
    the allocator caches, communication buffers of DDP, and loaded libraries. docs/speed.md compares the estimate with
    measured peaks.

    Args:
        model: not changed.
        maker: gives the number and the sizes of the views.
        optimizer: the optimizer of the recipe.
        num_images: images of this process in a step.
        accumulation: micro-batches of a step.
        precision: fp32, bf16 or fp16.

    Raises:
        NotSupported: the step fails on fake tensors, as where the shape of a tensor depends on the values of another.
    """
    mode, count = FakeTensorMode(), _Count()
    try:
        # The memo of deepcopy holds a fake tensor for each real one, so that the copy allocates nothing.
        model = copy.deepcopy(model, {id(tensor): mode.from_tensor(tensor) for tensor in _state_of(model)})
        with mode:
            views = Views.of([torch.empty(num_images, maker.channels, s, s) for s in maker.sizes], maker.num_globals)
            networks = count.add(_state_of(model))
            stepper = optimizer.build(parameter_groups(model.student, optimizer.decays_vectors))
            # Before the step that is measured: a run has this state in every step but its first.
            states = count.add(_states_of(stepper))
            count.add(group.images for group in views.groups)
            with count:
                train_step(model, views, stepper, accumulation=accumulation, executor=_Autocast(precision))
    # Operations on fake tensors fail with errors of many classes, and components may add their own.
    except Exception as error:
        raise NotSupported(f"a step cannot run on tensors without values ({type(error).__name__})") from error
    return Memory(networks, states, count.peak)


class _Count(TorchDispatchMode):
    """Dispatch mode that counts the bytes of all live tensors, each storage once, and returns 0 for ``item()``."""

    def __init__(self) -> None:
        super().__init__()
        self.peak = 0
        self._sizes: dict[int, int] = {}
        self._now = 0

    def __torch_dispatch__(
        self, function: Any, types: Any, arguments: tuple[Any, ...] = (), named: Mapping[str, Any] | None = None
    ) -> Any:
        # Fake tensors have no value to return; any number will do for a count of bytes.
        if function is torch.ops.aten._local_scalar_dense.default:
            return 0
        result = function(*arguments, **(named or {}))
        self.add(leaf for leaf in tree_leaves(result) if isinstance(leaf, Tensor))
        return result

    def add(self, tensors: Iterable[Tensor]) -> int:
        """Count tensors until they are freed, and return the bytes that were not counted before."""
        before = self._now
        for tensor in tensors:
            storage = tensor.untyped_storage()
            # Views and detached tensors share a storage, which its address identifies.
            if storage._cdata not in self._sizes:
                self._sizes[storage._cdata] = storage.nbytes()
                self._now += storage.nbytes()
                weakref.finalize(storage, self._remove, storage._cdata)
        self.peak = max(self.peak, self._now)
        return self._now - before

    def _remove(self, key: int) -> None:
        self._now -= self._sizes.pop(key)


class _Autocast(Executor):
    """Executor of one process with autocast to a named precision."""

    def __init__(self, precision: str) -> None:
        self.dtype = DTYPES[precision]

    def autocast(self) -> AbstractContextManager[Any]:
        # `explain` builds the networks on the CPU, whatever the device of the run.
        return nullcontext() if self.dtype is None else torch.autocast("cpu", self.dtype)


def _state_of(model: StudentTeacher) -> list[Tensor]:
    return [*model.parameters(), *model.buffers()]


def _states_of(stepper: torch.optim.Optimizer) -> Iterator[Tensor]:
    """Return the state of the optimizer, which torch creates in the first step, after a step with gradients of 0."""
    parameters = [parameter for group in stepper.param_groups for parameter in group["params"]]
    for parameter in parameters:
        parameter.grad = torch.zeros_like(parameter)
    set_rates(stepper, lr=0.0, weight_decay=0.0)
    stepper.step()
    stepper.zero_grad()
    return (kept for state in stepper.state.values() for kept in state.values() if isinstance(kept, Tensor))
