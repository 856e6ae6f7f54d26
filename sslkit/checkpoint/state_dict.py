"""The numbers of a run in flat form: tensors by name, and what is no tensor as JSON takes it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from sslkit.method.student_teacher import StudentTeacher

MODEL, OPTIMIZER = "model.", "optimizer."
Numbers = dict[str, dict[str, Any]]


def flatten(model: StudentTeacher, optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], Numbers]:
    """Return every tensor of model and optimizer by name, and the optimizer's other numbers by parameter."""
    tensors = {MODEL + name: value for name, value in _model_state(model).items()}
    numbers: Numbers = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER}{index}.{key}"] = value
            else:
                numbers.setdefault(str(index), {})[key] = value
    return tensors, numbers


def moved(model: StudentTeacher, optimizer: torch.optim.Optimizer) -> list[str]:
    """Return the names of the optimizer's parameters in its order, by which its state is numbered."""
    names = {parameter: name for name, parameter in model.named_parameters()}
    return [names.get(parameter, "") for group in optimizer.param_groups for parameter in group["params"]]


def misfit(
    tensors: Mapping[str, Tensor], numbers: Numbers, model: StudentTeacher, optimizer: torch.optim.Optimizer
) -> list[str]:
    """Return the names that ``restore`` could not use or would miss: foreign ones, missing ones, other shapes."""
    expected = {MODEL + name: value.shape for name, value in _model_state(model).items()}
    found = {name: value.shape for name, value in tensors.items() if not name.startswith(OPTIMIZER)}
    names = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    count = sum(len(group["params"]) for group in optimizer.param_groups)
    indices = {name: name.split(".")[1] for name in tensors if name.startswith(OPTIMIZER)}
    indices |= {f"{OPTIMIZER}{index}": index for index in numbers}
    return sorted(names + [name for name, index in indices.items() if index not in map(str, range(count))])


def restore(
    tensors: Mapping[str, Tensor], numbers: Numbers, model: StudentTeacher, optimizer: torch.optim.Optimizer
) -> None:
    """Set model and optimizer to what `flatten` returned; what is a `misfit` must not come here."""
    state = {name.removeprefix(MODEL): value for name, value in tensors.items() if name.startswith(MODEL)}
    model.load_state_dict(state, strict=False)
    saved: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in numbers.items()}
    for name, value in tensors.items():
        if name.startswith(OPTIMIZER):
            _, index, key = name.split(".", 2)
            saved.setdefault(int(index), {})[key] = value
    optimizer.load_state_dict({"state": saved, "param_groups": optimizer.state_dict()["param_groups"]})
    _lay_out_like_parameters(optimizer)


def _lay_out_like_parameters(optimizer: torch.optim.Optimizer) -> None:
    """Give moments the strides of their parameters (channels last): fused optimizers walk both as flat memory."""
    for parameter, state in optimizer.state.items():
        for key, value in state.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                state[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _model_state(model: StudentTeacher) -> dict[str, Tensor]:
    """Return the model's state; a teacher that is the student is written once."""
    shared = model.teacher is model.student
    return {name: v for name, v in model.state_dict().items() if not (shared and name.startswith("teacher."))}
