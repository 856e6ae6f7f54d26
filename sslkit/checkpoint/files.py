"""Checkpoint files, written so that a crash at any moment loses at most the newest checkpoint."""

import hashlib
import json
import logging
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from sslkit.checkpoint.state_dict import flatten, mismatched_names, unflatten
from sslkit.distributed import rank
from sslkit.errors import SSLKitError
from sslkit.method.executor import Executor
from sslkit.method.student_teacher import StudentTeacher
from sslkit.run_folder.atomic_write import sync
from sslkit.run_folder.folder import OTHER_RECIPE

logger = logging.getLogger("sslkit.training")

TENSORS, NUMBERS = "state.safetensors", "state.json"
DAMAGED = "damaged-"
"""Prefix of the name of a checkpoint that cannot be loaded, so that it is not tried again."""


@dataclass(frozen=True)
class Progress:
    """The progress of a run, stored in its checkpoints.

    Args:
        step: optimizer steps taken.
        identity: hash of the recipe; checkpoints of another recipe are refused.
    """

    step: int
    identity: str


def save_checkpoint(
    folder: Path,
    state: Mapping[str, Any],
    progress: Progress,
    keep: int,
) -> Path:
    """Write the checkpoint ``folder/step-N`` and remove all but the newest ``keep`` checkpoints.

    An existing checkpoint of this step is kept, since the same would be written again.

    Args:
        folder: of checkpoints.
        state: from `Executor.state_dict`.
        progress: of the run.
        keep: number of checkpoints to keep.

    Returns:
        The folder of the checkpoint.

    Raises:
        OSError: the checkpoint cannot be written; earlier ones are kept, and the incomplete one is removed.
    """
    final = folder / _name_of(progress.step)
    if final.exists():
        return final
    for left_by_a_crash in folder.glob(".step-*.tmp"):
        shutil.rmtree(left_by_a_crash)
    # Under a temporary name until it is complete: a rename within a folder is atomic.
    temporary = _temporary(final)
    temporary.mkdir(parents=True)
    try:
        tensors, numbers = flatten(state)
        metadata = {
            "step": progress.step,
            "identity": progress.identity,
            "executor": state["executor"],
            "parameters": state["parameters"],
            "optimizer": numbers,
        }
        _write(temporary, tensors, metadata)
        temporary.rename(final)
    except OSError:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    # The new name reaches the disk before older checkpoints are removed.
    sync(folder)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        # Renamed first: a checkpoint that is partly removed when a run is killed must not look like a damaged one.
        shutil.rmtree(old.rename(_temporary(old)))
    return final


def load_newest(
    folder: Path,
    model: StudentTeacher,
    optimizer: torch.optim.Optimizer,
    identity: str,
    executor: Executor | None = None,
    before: int | None = None,
) -> int | None:
    """Load the newest usable checkpoint and return its step, or None if there is no checkpoint.

    A checkpoint that is damaged, or has other names or shapes than the model, is logged and renamed, and the one before
    it is tried.

    Args:
        folder: of checkpoints.
        model: loads its state.
        optimizer: loads its state.
        identity: hash of the recipe.
        executor: loads its state; None for one process in the precision of its tensors.
        before: number of steps that a checkpoint must be below, or None for any checkpoint.

    Raises:
        SSLKitError: the newest undamaged checkpoint belongs to another recipe, or no checkpoint is usable.
    """
    executor = executor or Executor()
    current = executor.state_dict(model, optimizer)
    damaged: dict[Path, Exception] = {}
    for path in sorted(folder.glob("step-*"), reverse=True):
        if before is not None and path.name >= _name_of(before):
            continue
        try:
            tensors, metadata = _read(path, identity, current)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            logger.warning("checkpoint %s is damaged (%s)", path, error)
            damaged[path] = error
            continue
        state = unflatten(tensors, metadata["optimizer"], current)
        executor.load(model, optimizer, {**state, "executor": metadata.get("executor", {})})
        # Only now: if no checkpoint is usable, all keep their names for another attempt.
        _set_aside(list(damaged))
        step: int = metadata["step"]
        return step
    if damaged:
        each = "; ".join(f"{path.name}: {error}" for path, error in damaged.items())
        raise SSLKitError(f"{folder}: none of {len(damaged)} checkpoints is whole; choose another --run-dir. {each}")
    return None


def _write(folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    try:
        # safetensors refuses tensors that are not contiguous, such as weights in channels last; `Executor.load` gives
        # optimizer states the strides of their parameters again.
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, folder / TENSORS)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    numbers = {**metadata, "sha256": _checksum(folder / TENSORS)}
    (folder / NUMBERS).write_text(json.dumps({**numbers, "json_sha256": _hash_of(numbers)}, indent=1))
    for path in (folder / TENSORS, folder / NUMBERS, folder):
        sync(path)


def _read(path: Path, identity: str, current: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return tensors and metadata of a checkpoint.

    Raises:
        SSLKitError: it belongs to another recipe.
        ValueError: it is damaged, or has other names or shapes than the ``current`` state.
    """
    metadata = json.loads((path / NUMBERS).read_text())
    # Checkpoints of earlier versions have no such hash; the step is in their folder's name, too.
    if metadata.pop("json_sha256", None) not in (None, _hash_of(metadata)):
        raise ValueError(f"{NUMBERS} is not what was written")
    if path.name != _name_of(metadata["step"]):
        raise ValueError(f"{NUMBERS} is that of step {metadata['step']}")
    if metadata["identity"] != identity:
        raise SSLKitError(f"{path} was written by {OTHER_RECIPE}")
    # Checkpoints of earlier versions have no checksum and no names of parameters.
    if metadata.get("parameters") not in (None, current["parameters"]):
        raise ValueError("its optimizer state is that of other parameters, or of the same in another order")
    if metadata.get("sha256") not in (None, _checksum(path / TENSORS)):
        raise ValueError(f"{TENSORS} is not what was written")
    tensors = load_file(path / TENSORS)
    if names := mismatched_names(tensors, metadata["optimizer"], current):
        raise ValueError(f"it does not fit the model: {', '.join(names[:5])}")
    return tensors, metadata


def _name_of(step: int) -> str:
    """Return the name of the folder of a checkpoint.

    Raises:
        ValueError: the step is no whole number.
    """
    if type(step) is not int or step < 0:
        raise ValueError(f"its step is {step!r}")
    return f"step-{step:09d}"


def _hash_of(metadata: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON data, as they are after they have been written and read."""
    return hashlib.sha256(json.dumps(metadata, sort_keys=True).encode()).hexdigest()


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _set_aside(damaged: Sequence[Path]) -> None:
    if rank() == 0:
        for path in damaged:
            path.rename(path.with_name(DAMAGED + path.name))
