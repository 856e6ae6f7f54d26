"""Write and read checkpoint files, so that a crash at any moment loses at most the newest checkpoint."""

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
    """Where a run stands.

    Args:
        step: optimizer steps taken.
        identity: of the recipe; a checkpoint of another recipe is refused.
    """

    step: int
    identity: str


def save_checkpoint(
    folder: Path,
    state: Mapping[str, Any],
    progress: Progress,
    keep: int,
) -> Path:
    """Write ``folder/step-N`` under a temporary name, rename it, and remove all but the newest ``keep``.

    Where this step was written before, the same would be written again: what is there stays.

    Args:
        folder: of checkpoints.
        state: of `Executor.state_dict`.
        progress: where the run stands.
        keep: checkpoints that stay.

    Raises:
        OSError: it cannot be written; the checkpoints before it stay, and what was written of it is removed.
    """
    final = folder / f"step-{progress.step:09d}"
    if final.exists():
        return final
    for left_by_a_crash in folder.glob(".step-*.tmp"):
        shutil.rmtree(left_by_a_crash)
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
    sync(folder)
    for old in sorted(folder.glob("step-*"))[:-keep]:
        # Under a temporary name first: one that is half removed when a run is killed must not look like a damaged one.
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
    """Restore the newest checkpoint that can be used and return its step, or None where there is none.

    A damaged one, or one whose names or shapes are not the model's, is reported, set aside, and the one before it is
    taken.

    Args:
        folder: of checkpoints.
        model: to set.
        optimizer: to set.
        identity: of the recipe.
        executor: to set; None is one process in the precision of its tensors.
        before: only checkpoints of fewer steps than this are taken; None takes any.

    Raises:
        SSLKitError: the newest whole checkpoint belongs to another recipe; or there are checkpoints and none can be
            used.
    """
    executor = executor or Executor()
    current = executor.state_dict(model, optimizer)
    damaged: dict[Path, Exception] = {}
    for path in sorted(folder.glob("step-*"), reverse=True):
        if before is not None and path.name >= f"step-{before:09d}":
            continue
        try:
            tensors, metadata = _read(path, identity, current)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            logger.warning("checkpoint %s is damaged (%s)", path, error)
            damaged[path] = error
            continue
        state = unflatten(tensors, metadata["optimizer"], current)
        executor.load(model, optimizer, {**state, "executor": metadata.get("executor", {})})
        _set_aside(list(damaged))
        step: int = metadata["step"]
        return step
    if damaged:
        each = "; ".join(f"{path.name}: {error}" for path, error in damaged.items())
        raise SSLKitError(f"{folder}: none of {len(damaged)} checkpoints is whole; choose another --run-dir. {each}")
    return None


def _write(folder: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, folder / TENSORS)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    (folder / NUMBERS).write_text(json.dumps({**metadata, "sha256": _checksum(folder / TENSORS)}, indent=1))
    for path in (folder / TENSORS, folder / NUMBERS, folder):
        sync(path)


def _read(path: Path, identity: str, current: Mapping[str, Any]) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a checkpoint's tensors and its JSON, which have the names and shapes of the ``current`` state."""
    metadata = json.loads((path / NUMBERS).read_text())
    if metadata["identity"] != identity:
        raise SSLKitError(f"{path} was written by {OTHER_RECIPE}")
    # Runs of earlier versions wrote no checksum and no names of parameters.
    if metadata.get("parameters") not in (None, current["parameters"]):
        raise ValueError("its moments are those of other parameters, or of the same in another order")
    if metadata.get("sha256") not in (None, _checksum(path / TENSORS)):
        raise ValueError(f"{TENSORS} is not what was written")
    tensors = load_file(path / TENSORS)
    if names := mismatched_names(tensors, metadata["optimizer"], current):
        raise ValueError(f"it does not fit the model: {', '.join(names[:5])}")
    return tensors, metadata | {"step": int(metadata["step"])}


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _set_aside(damaged: Sequence[Path]) -> None:
    if rank() == 0:
        for path in damaged:
            path.rename(path.with_name(DAMAGED + path.name))
