"""Steps by accelerate in one process: the scaled gradients of fp16."""

from types import SimpleNamespace

import pytest
import torch

from sslkit.errors import RecipeError
from sslkit.method.executor import Executor
from sslkit.method.finite_guard import apply_if_finite, nonfinite_flags
from sslkit.training.accelerated import AccelerateExecutor
from sslkit.types import Projection


@pytest.fixture
def scaled():
    scaler = torch.amp.GradScaler("cpu")
    accelerator = SimpleNamespace(
        num_processes=1,
        scaler=scaler,
        backward=lambda loss: scaler.scale(loss).backward(),
        unscale_gradients=lambda optimizer: scaler.unscale_(optimizer),
    )
    model = torch.nn.Linear(2, 1)
    torch.nn.init.zeros_(model.weight)  # so that whole numbers move without rounding
    executor = AccelerateExecutor(accelerator)
    executor.prepare(model, model)
    return executor, model, scaler


def test_one_gpu_named_for_several_processes_is_refused():
    accelerator = SimpleNamespace(num_processes=2, device=torch.device("cuda:1"))
    model = torch.nn.Linear(2, 1)
    message = "runtime.device: cpu is one device, but 2 processes train together, each on its own"
    with pytest.raises(RecipeError, match=message):
        AccelerateExecutor(accelerator).prepare(model, model)


def step(executor, model, value):
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    before = model.weight.detach().clone()
    optimizer.zero_grad()
    loss = model(torch.full((1, 2), value)).sum()
    executor.backward(loss)
    executor.unscale(optimizer)
    flags = nonfinite_flags(loss.detach(), Projection.of(embedding=torch.zeros(1, 1, 1)), optimizer)
    apply_if_finite(flags, optimizer, lambda: executor.step(optimizer), list)
    return (model.weight - before).tolist()


def test_scaled_gradients_move_parameters_as_far_as_plain_ones(scaled):
    executor, model, _ = scaled
    assert step(executor, model, 3.0) == step(Executor(), model, 3.0) == [[-3.0, -3.0]]


def test_an_overflow_moves_nothing_and_halves_the_scale(scaled):
    executor, model, scaler = scaled
    before = scaler.get_scale()
    assert step(executor, model, float("inf")) == [[0.0, 0.0]]
    assert scaler.get_scale() == before / 2
    assert step(executor, model, 1.0) == [[-1.0, -1.0]]
