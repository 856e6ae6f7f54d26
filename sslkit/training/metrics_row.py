"""What metrics.jsonl says of a step."""

from collections.abc import Mapping

import torch
from torch import Tensor

from sslkit.checks.outputs import check_numbers
from sslkit.clock import Clock
from sslkit.distributed import mean_over_processes
from sslkit.health.diagnostics import diagnose
from sslkit.method.step import StepOutput
from sslkit.recipe.sections import BuiltRecipe
from sslkit.schedules import value_at
from sslkit.training.setup import intervals_of


def step_row(built: BuiltRecipe, clock: Clock, output: StepOutput, skipped: int) -> dict[str, float]:
    """Return the numbers of the step just taken; reading them is a run's only wait for the device.

    Args:
        built: the built recipe.
        clock: of this step.
        output: what it left.
        skipped: steps so far that moved nothing.
    """
    method, plan = built.method, built.optimization
    row: dict[str, float | Tensor] = {
        "step": clock.step + 1,
        "epoch": (clock.step + 1) / clock.steps_per_epoch,
        "loss": mean_over_processes(output.loss),
        "skipped_steps": skipped,
        "lr": plan.learning_rate(clock),
        "weight_decay": value_at(plan.weight_decay, clock),
    }
    for part in (method.teacher, method.collapse):
        if part is not None:
            row |= check_numbers(part, part.metrics(clock), row)
    return as_numbers(row | diagnose(output, method.loss, intervals_of(built).measures_rank(clock)))


def as_numbers(values: Mapping[str, float | Tensor]) -> dict[str, float]:
    """Return plain numbers; all tensors of a device are read at once, which is one wait for it."""
    tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
    read: dict[str, float] = {}
    for device in {tensor.device for tensor in tensors.values()}:
        there = {name: tensor for name, tensor in tensors.items() if tensor.device == device}
        # Holds the numbers of every other dtype, counts too.
        widest = torch.float32 if device.type == "mps" else torch.float64
        numbers = torch.stack([tensor.reshape(()).to(widest) for tensor in there.values()]).cpu().tolist()
        read |= {name: float(number) for name, number in zip(there, numbers)}
    return {name: read[name] if name in read else float(value) for name, value in values.items()}
