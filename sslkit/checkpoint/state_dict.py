"""Conversion of state dicts to tensors by name and plain data for JSON, and back."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

MODEL, OPTIMIZER = "model.", "optimizer."
Numbers = dict[str, dict[str, Any]]


def flatten(state: Mapping[str, Any]) -> tuple[dict[str, Tensor], Numbers]:
    """Return all tensors of a state by name, and the numbers of the optimizer state by position of the parameter.

    Args:
        state: from `Executor.state_dict`.
    """
    tensors = {MODEL + name: value for name, value in state["model"].items()}
    numbers: Numbers = {}
    for index, values in state["optimizer"]["state"].items():
        for key, value in values.items():
            if isinstance(value, Tensor):
                tensors[f"{OPTIMIZER}{index}.{key}"] = value
            else:
                numbers.setdefault(str(index), {})[key] = value
    return tensors, numbers


def unflatten(tensors: Mapping[str, Tensor], numbers: Numbers, current: Mapping[str, Any]) -> dict[str, Any]:
    """Return the state that `flatten` was called with; missing entries are taken from the ``current`` state."""
    saved: dict[int, dict[str, Any]] = {int(index): dict(values) for index, values in numbers.items()}
    for name, value in tensors.items():
        if name.startswith(OPTIMIZER):
            _, index, key = name.split(".", 2)
            saved.setdefault(int(index), {})[key] = value
    model = {name.removeprefix(MODEL): value for name, value in tensors.items() if name.startswith(MODEL)}
    return {**current, "model": model, "optimizer": {**current["optimizer"], "state": saved}}


def mismatched_names(tensors: Mapping[str, Tensor], numbers: Numbers, current: Mapping[str, Any]) -> list[str]:
    """Return the names that are unknown, missing or of another shape in a checkpoint.

    Args:
        tensors: of the checkpoint.
        numbers: of the checkpoint.
        current: state of the run, from `Executor.state_dict`.
    """
    expected = {MODEL + name: value.shape for name, value in current["model"].items()}
    found = {name: value.shape for name, value in tensors.items() if not name.startswith(OPTIMIZER)}
    names = [name for name in {**expected, **found} if found.get(name) != expected.get(name)]
    # A parameter has no moments before its first step, so only moments of unknown parameters are an error.
    indices = {name: name.split(".")[1] for name in tensors if name.startswith(OPTIMIZER)}
    indices |= {f"{OPTIMIZER}{index}": index for index in numbers}
    count = len(current["parameters"])
    return sorted(names + [name for name, index in indices.items() if index not in map(str, range(count))])
