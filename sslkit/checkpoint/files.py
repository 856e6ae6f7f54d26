"""Everything that the next step reads, written so that a crash at any moment loses at most the newest write."""

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

from sslkit.checkpoint.state_dict import flatten, misfit, moved, restore
from sslkit.distributed import rank
from sslkit.errors import SSLKitError
from sslkit.method.executor import Executor
from sslkit.method.student_teacher import StudentTeacher
from sslkit.run_folder.atomic_write import sync
from sslkit.run_folder.folder import OTHER_RECIPE

logger = logging.getLogger("sslkit.training")

TENSORS, NUMBERS = "state.safetensors", "state.json"
DAMAGED = "damaged-"
"""What the name of a checkpoint that cannot be used is given in front, so that it is never counted again."""


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
    model: StudentTeacher,
    optimizer: torch.optim.Optimizer,
    progress: Progress,
    keep: int,
    executor: Executor | None = None,
) -> Path:
    """Write ``folder/step-N`` under a temporary name, rename it, and remove all but the newest ``keep``.

    A run that wrote this step before has nothing new to say: what is there stays.

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
        tensors, numbers = flatten(model, optimizer)
        said = {
            "step": progress.step,
            "identity": progress.identity,
            "executor": executor.state() if executor is not None else {},
            "parameters": moved(model, optimizer),
            "optimizer": numbers,
        }
        _write(temporary, tensors, said)
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
        executor: to set; None leaves it out.
        before: only checkpoints of fewer steps than this are taken; None takes any.

    Raises:
        SSLKitError: the newest whole checkpoint belongs to another recipe; or there are checkpoints and none can be
            used.
    """
    damaged: dict[Path, Exception] = {}
    for path in sorted(folder.glob("step-*"), reverse=True):
        if before is not None and path.name >= f"step-{before:09d}":
            continue
        try:
            tensors, said = _read(path, identity, model, optimizer)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            logger.warning("checkpoint %s is damaged (%s)", path, error)
            damaged[path] = error
            continue
        restore(tensors, said["optimizer"], model, optimizer)
        if executor is not None:
            executor.restore(said.get("executor", {}))
        _set_aside(list(damaged))
        step: int = said["step"]
        return step
    if damaged:
        each = "; ".join(f"{path.name}: {error}" for path, error in damaged.items())
        raise SSLKitError(f"{folder}: none of {len(damaged)} checkpoints is whole; choose another --run-dir. {each}")
    return None


def _write(folder: Path, tensors: Mapping[str, Tensor], said: Mapping[str, Any]) -> None:
    try:
        save_file({name: value.detach().cpu().contiguous() for name, value in tensors.items()}, folder / TENSORS)
    except SafetensorError as error:
        raise OSError(str(error)) from error
    (folder / NUMBERS).write_text(json.dumps({**said, "sha256": _checksum(folder / TENSORS)}, indent=1))
    for path in (folder / TENSORS, folder / NUMBERS, folder):
        sync(path)


def _read(
    path: Path, identity: str, model: StudentTeacher, optimizer: torch.optim.Optimizer
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return a checkpoint's tensors and its JSON, of which nothing is missing, foreign or of another shape."""
    said = json.loads((path / NUMBERS).read_text())
    if said["identity"] != identity:
        raise SSLKitError(f"{path} was written by {OTHER_RECIPE}")
    # Runs of earlier versions wrote no checksum and no names of parameters.
    if said.get("parameters") not in (None, moved(model, optimizer)):
        raise ValueError("its moments are those of other parameters, or of the same in another order")
    if said.get("sha256") not in (None, _checksum(path / TENSORS)):
        raise ValueError(f"{TENSORS} is not what was written")
    tensors = load_file(path / TENSORS)
    if names := misfit(tensors, said["optimizer"], model, optimizer):
        raise ValueError(f"it does not fit the model: {', '.join(names[:5])}")
    return tensors, said | {"step": int(said["step"])}


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


def _set_aside(damaged: Sequence[Path]) -> None:
    if rank() == 0:
        for path in damaged:
            path.rename(path.with_name(DAMAGED + path.name))
