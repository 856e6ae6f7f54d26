"""Saving and loading of the checkpoints and backbones of a run."""

import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

import torch

from sslkit.checkpoint.files import Progress, load_newest, save_checkpoint
from sslkit.distributed import rank
from sslkit.errors import RunError
from sslkit.method.executor import Executor
from sslkit.method.student_teacher import StudentTeacher
from sslkit.run_folder.folder import RunFolder

logger = logging.getLogger("sslkit.training")


class Rows(Protocol):
    """A log file whose last rows may not have reached the disk."""

    def sync(self) -> None:
        """Flush all rows to the disk.

        Raises:
            OSError: they cannot be written.
        """


class CheckpointManager:
    """The checkpoints of a run; the main process writes them, every process loads them.

    Args:
        folder: of the run.
        model: student and teacher.
        optimizer: of the student's parameters.
        executor: of the steps.
        identity: hash of the recipe; checkpoints of another recipe are refused.
        keep: number of newest checkpoints to keep.
    """

    def __init__(
        self,
        folder: RunFolder,
        model: StudentTeacher,
        optimizer: torch.optim.Optimizer,
        executor: Executor,
        identity: str,
        keep: int,
    ) -> None:
        self.folder, self.model, self.optimizer, self.executor = folder, model, optimizer, executor
        self.identity, self.keep = identity, keep
        self.step = 0
        """Step of the newest checkpoint, 0 before the first."""
        self.failure: OSError | None = None
        """The error of the last attempt to save, or None if it succeeded."""

    @property
    def latest(self) -> str:
        """The newest checkpoint in words, for messages."""
        return f"the newest checkpoint is that of step {self.step}" if self.step else "there is no checkpoint yet"

    @property
    def saved(self) -> str:
        """What a run that ends now goes on from, as a sentence."""
        return f"Step {self.step} is saved: --resume goes on from there" if self.step else "No step is saved"

    def load(self, before: int | None = None) -> int | None:
        """Load the newest checkpoint and return its step, or None if there is none.

        Args:
            before: number of steps that a checkpoint must be below, or None for any checkpoint.

        Raises:
            SSLKitError: the checkpoint belongs to another recipe, or none is usable.
        """
        folder = self.folder.checkpoints
        step = load_newest(folder, self.model, self.optimizer, self.identity, self.executor, before)
        self.step = step or 0
        return step

    def save(self, step: int, rows: Iterable[Rows], extra: int = 0) -> Path | None:
        """Flush the log files, then write a checkpoint and both backbones.

        A full disk does not stop the run: stopping would certainly lose the steps since the last checkpoint, while
        space may be freed before the next one.

        Args:
            step: optimizer steps taken.
            rows: the log files of the run.
            extra: number of checkpoints to keep in addition to ``keep``.

        Returns:
            The folder of the checkpoint; None if it could not be written, with the error in ``failure`` and a warning
            in the log, and in every process but the main one.
        """
        # In every process, before what may fail in the main one only: an executor with sharded networks gathers here.
        state = self.executor.state_dict(self.model, self.optimizer)
        if rank() != 0:
            return None
        progress, keep = Progress(step, self.identity), self.keep + extra
        try:
            # Before the checkpoint, which would otherwise be ahead of its rows after a crash.
            for each in rows:
                each.sync()
            path = save_checkpoint(self.folder.checkpoints, state, progress, keep)
            self.folder.save_backbones({"teacher": self.model.teacher.backbone, "student": self.model.student.backbone})
        except OSError as error:
            self.failure = error
            logger.warning("step %d is not saved: %s. The checkpoints before it stay", step, error)
            return None
        self.failure, self.step = None, step
        return path

    def check(self, step: int) -> None:
        """Raise an error if the last checkpoint could not be written.

        Args:
            step: of that checkpoint, for the message.

        Raises:
            RunError: the last attempt to save failed.
        """
        if self.failure:
            raise RunError(
                f"step {step} could not be saved: {self.failure}. What was saved before it is in "
                f"{self.folder.checkpoints}; --resume goes on from there"
            )
