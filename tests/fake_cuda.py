"""Parts of the product on CUDA tensors that have a shape and no content: what a GPU would find, without a GPU.

An operation that mixes devices fails, as on a GPU. `Traffic` counts by line of the product

    waits   operations for which the host waits until the device is done: a number read from a tensor, a shape that
            depends on values, a copy to the host
    copies  tensors that go from host to device

The backward pass is left out, because autograd asks for a real device: gradients appear from nowhere.
"""

import collections
import copy
import traceback
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from sslkit.clock import Clock
from sslkit.evaluators.knn import KNN
from sslkit.health.diagnostics import diagnose
from sslkit.method.executor import Executor
from sslkit.method.gradients import Clip
from sslkit.method.step import train_step
from sslkit.optimizers.parameter_groups import set_rates
from sslkit.recipe import load
from sslkit.recipe.model import build_model, build_optimizer
from sslkit.training.metrics_row import as_numbers
from sslkit.types import EvaluationData, LabelledImages, Sample, Views

WAITS = {
    "aten::_local_scalar_dense",
    "aten::nonzero",
    "aten::is_nonzero",
    "aten::equal",
    "aten::masked_select",
    "aten::_unique2",
}
COPIES = {"aten::_to_copy", "aten::copy_"}


ANSWERS = {
    "aten::_local_scalar_dense": lambda tensor: 0,
    "aten::_pin_memory": lambda tensor, device=None: tensor,
    "aten::nonzero": lambda tensor: torch.empty(0, tensor.ndim, dtype=torch.long, device=tensor.device),
    "aten::_unique2": lambda tensor, *_: (tensor.new_empty(5), torch.zeros_like(tensor), tensor.new_empty(0)),
}
"""What tensors without content say where the answer depends on it: the number 0, no place, five values."""


class Traffic(TorchDispatchMode):
    """Counts waits and copies of CUDA tensors by the line of the product that asks for them."""

    def __init__(self):
        super().__init__()
        self.waits, self.copies = collections.Counter(), collections.Counter()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        name, tensors = function._schema.name, [each for each in args if isinstance(each, torch.Tensor)]
        if name in WAITS and any(tensor.device.type == "cuda" for tensor in tensors):
            self.waits[f"{name} {line_of_the_product()}"] += 1
        if name in ANSWERS:
            return ANSWERS[name](*args)
        result = function(*args, **(kwargs or {}))
        if name in COPIES and len({tensor.device.type for tensor in [*tensors, result]}) > 1:
            if result.device.type == "cuda":
                self.copies[line_of_the_product()] += 1
            else:
                self.waits[f"{name} {line_of_the_product()}"] += 1
        return result


def line_of_the_product():
    """Return the innermost line of sslkit, or of a test, on the stack."""
    for frame in reversed(traceback.extract_stack()):
        for folder in ("/sslkit/", "/tests/"):
            if folder in frame.filename and frame.filename != __file__ and "site-packages" not in frame.filename:
                return f"{frame.filename.rpartition(folder)[2]}:{frame.lineno}"
    return "?"


class Bf16(Executor):
    """bf16 autocast; gradients come from nowhere."""

    def __init__(self, student):
        self.parameters = list(student.parameters())

    @contextmanager
    def autocast(self):
        # torch.autocast does nothing where there is no such device.
        torch.set_autocast_dtype("cuda", torch.bfloat16)
        torch.set_autocast_enabled("cuda", True)
        try:
            yield
        finally:
            torch.clear_autocast_cache()
            torch.set_autocast_enabled("cuda", False)

    def backward(self, loss):
        for parameter in self.parameters:
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)


def without_content(tensor, mode):
    with mode:
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="cuda")
    return nn.Parameter(empty, requires_grad=tensor.requires_grad) if isinstance(tensor, nn.Parameter) else empty


def on_cuda(module, mode):
    """Return a copy of a module whose tensors are on the device, without content."""
    state = [*module.parameters(), *module.buffers()]
    return copy.deepcopy(module, {id(tensor): without_content(tensor, mode) for tensor in state})


def step(recipe, *overrides, images=64):
    """Return the traffic of an unlogged step of a recipe, and of the diagnostics of a logged one."""
    builder, mode = load(recipe, overrides).builder(), FakeTensorMode()
    method, plan, maker = (builder.build(part) for part in ("method", "optimization", "views"))
    model = on_cuda(build_model(method, None, torch.device("cpu")), mode)
    with mode:
        optimizer = build_optimizer(plan, model.student)
        crops = [torch.empty(images, maker.channels, size, size, device="cuda") for size in maker.sizes]
        views = Views.of(crops, maker.num_globals)
        clock, executor = Clock(0, 1000, 100), Bf16(model.student)
        # The second step is looked at: its states exist, queues have started and freezes have ended.
        for number in (900, 901):
            with Traffic() as traffic:
                set_rates(optimizer, 1e-3, 0.04)
                output = train_step(model, views, optimizer, clock.at(number), clip=Clip(3.0), executor=executor)
        with Traffic() as logged:
            as_numbers(diagnose(output, method.loss))
    return traffic, logged


def views(recipe, *overrides, images=16):
    """Return the traffic of making the views of a batch whose images are on the device already."""
    maker, mode = load(recipe, overrides).builder().build("views"), FakeTensorMode()
    picture = torch.randint(0, 256, (maker.channels, 300, 400), dtype=torch.uint8)
    prepared = maker.prepare(Sample(picture, 5), 0, 0)
    with mode:
        batch = [torch.empty((images, *part.shape), dtype=part.dtype, device="cuda") for part in prepared]
    # A tensor would lose its content inside the mode.
    keys = SimpleNamespace(numpy=lambda: np.arange(images))
    mode.allow_non_fake_inputs = True  # what is drawn on the host has content
    for epoch in (0, 1):  # the constants of the views are on the device from the first batch on
        with mode, Traffic() as traffic:
            maker.make(batch, keys, epoch, 0)
    return traffic


def knn(backbone, batches=3, images=8, size=32):
    """Return the traffic of k-NN over so many batches of each part."""
    mode = FakeTensorMode()
    backbone = on_cuda(backbone, mode)

    def passes():
        for _ in range(batches):
            with mode:
                yield (
                    torch.empty(images, 3, size, size, device="cuda"),
                    torch.zeros(images, dtype=torch.long, device="cuda"),
                )

    part = LabelledImages("fake", passes, batches * images, 5)
    with mode, Traffic() as traffic:
        dict(KNN((3, 5)).run(backbone, EvaluationData(part, part)))
    return traffic
