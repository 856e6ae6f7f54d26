"""Everything that the next step reads, written so that a crash at any moment loses at most the newest write."""

import json
import logging
import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sslkit.distributed import rank
from sslkit.errors import SSLKitError
from sslkit.student_teacher import StudentTeacher

logger = logging.getLogger("sslkit.training")

TENSORS, NUMBERS = "state.safetensors", "state.json"
DAMAGED = "damaged-"
"""What the name of a checkpoint that cannot be read is given in front, so that it is never counted again."""


OTHER_RECIPE = (
    "another recipe than the one given: method, views, data, optimization, precision or seed differ. Resume with the "
    "run's own recipe.yaml, or choose another --run-dir."
)


@dataclass(frozen=True)
class Progress:
    """Where a run stands.

    Args:
        step: optimizer steps taken.
        identity: of the recipe; a checkpoint of another recipe is refused.
    """

    step: int
    identity: str


def save_checkpoint(
    folder: Path, model: StudentTeacher, optimizer: torch.optim.Optimizer, progress: Progress, keep: int
) -> Path:
    """Write ``folder/step-N`` under a temporary name, rename it, and remove all but the newest ``keep``.

    A run that wrote this step before has nothing new to say: what is there stays.
    """
    final = folder / f"step-{progress.step:09d}"
    if final.exists():
        return final
    temporary = folder / f".{final.name}.tmp"
    for left_by_a_crash in folder.glob(".step-*.tmp"):
        shutil.rmtree(left_by_a_crash)
    temporary.mkdir(parents=True)
    tensors, numbers = _flatten(optimizer)
    tensors |= {f"model.{name}": value for name, value in _model_state(model).items()}
    save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, temporary / TENSORS)
    (temporary / NUMBERS).write_text(
        json.dumps({"step": progress.step, "identity": progress.identity, "optimizer": numbers}, indent=1)
    )
    for path in (temporary / TENSORS, temporary / NUMBERS, temporary):
        _sync(path)
    temporary.rename(final)
    _sync(folder)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        shutil.rmtree(old)
    return final


def load_newest(folder: Path, model: StudentTeacher, optimizer: torch.optim.Optimizer, identity: str) -> int | None:
    """Restore the newest checkpoint that is whole and return its step, or None where there is none.

    A damaged one is reported, set aside, and the one before it is taken.

    Raises:
        SSLKitError: the newest whole checkpoint belongs to another recipe, or does not fit the model; or there are
            checkpoints and none is whole.
    """
    damaged: list[Path] = []
    for path in sorted(folder.glob("step-*"), reverse=True):
        try:
            tensors, numbers = load_file(path / TENSORS), json.loads((path / NUMBERS).read_text())
            step, written_by, of_optimizer = int(numbers["step"]), numbers["identity"], numbers["optimizer"]
        except (OSError, ValueError, KeyError, TypeError, SafetensorError) as error:
            logger.warning("checkpoint %s is damaged (%s)", path, error)
            damaged.append(path)
            continue
        if written_by != identity:
            raise SSLKitError(f"{path} was written by {OTHER_RECIPE}")
        _restore(path, model, optimizer, tensors, of_optimizer)
        _set_aside(damaged)
        return step
    if damaged:
        raise SSLKitError(f"{folder}: none of {len(damaged)} checkpoints is whole; choose another --run-dir")
    return None


def _set_aside(damaged: Sequence[Path]) -> None:
    if rank() == 0:
        for path in damaged:
            path.rename(path.with_name(DAMAGED + path.name))


def _restore(
    path: Path,
    model: StudentTeacher,
    optimizer: torch.optim.Optimizer,
    tensors: Mapping[str, Tensor],
    numbers: Mapping[str, Any],
) -> None:
    state = {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    expected = _model_state(model)
    if {name: value.shape for name, value in state.items()} != {name: v.shape for name, v in expected.items()}:
        differing = {name for name in {*state, *expected} if _shape(state, name) != _shape(expected, name)}
        raise SSLKitError(f"{path} does not fit the model: {', '.join(sorted(differing)[:5])}")
    model.load_state_dict(state, strict=False)
    saved: dict[int, dict[str, Any]] = {int(key): dict(value) for key, value in numbers.items()}
    for name, value in tensors.items():
        if name.startswith("optimizer."):
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


def _flatten(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, dict[str, Any]]]:
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for index, state in optimizer.state_dict()["state"].items():
        for key, value in state.items():
            if isinstance(value, Tensor):
                tensors[f"optimizer.{index}.{key}"] = value
            else:
                numbers.setdefault(str(index), {})[key] = value
    return tensors, numbers


def _shape(state: Mapping[str, Tensor], name: str) -> torch.Size | None:
    return state[name].shape if name in state else None


def _sync(path: Path) -> None:
    """Ask the system to write a file or a folder to its disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
