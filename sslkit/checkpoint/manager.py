"""Save and load the checkpoints of a run, and save both backbones by themselves."""

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
    """A file of rows, of which some may not be written yet."""

    def sync(self) -> None:
        """Write every row to the disk, or raise OSError."""


class CheckpointManager:
    """The checkpoints of a run; the main process writes them, every process loads them.

    Args:
        folder: of the run.
        model: student and teacher.
        optimizer: over the student.
        executor: of the steps.
        identity: of the recipe; checkpoints of another recipe are refused.
        keep: how many of the newest checkpoints stay.
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
        """Of the newest checkpoint."""
        self.failure: OSError | None = None
        """What kept the run from a newer one."""

    @property
    def latest(self) -> str:
        """The newest checkpoint in words, for messages."""
        return f"the newest checkpoint is that of step {self.step}" if self.step else "there is no checkpoint yet"

    def load(self, before: int | None = None) -> int | None:
        """Load the newest checkpoint, of fewer steps than ``before``, and return its step, or None where there is none.

        Raises:
            SSLKitError: it is another recipe's, or none is whole.
        """
        folder = self.folder.checkpoints
        step = load_newest(folder, self.model, self.optimizer, self.identity, self.executor, before)
        self.step = step or 0
        return step

    def save(self, step: int, rows: Iterable[Rows], extra: int = 0) -> Path | None:
        """Write a checkpoint, both backbones, and before them all rows, so that none is ahead of its rows.

        A run that has no room to save goes on: stopping would lose for certain what it learned since the last
        checkpoint, and room may be made before the next one.

        Args:
            step: optimizer steps taken.
            rows: of the run's files.
            extra: checkpoints that stay beyond the usual number.

        Returns:
            The checkpoint, or None where there is none: ``failure`` and a warning say why.
        """
        # Every process, before what can fail on the main one alone: an executor that shards gathers the shards here.
        state = self.executor.state_dict(self.model, self.optimizer)
        if rank() != 0:
            return None
        progress, keep = Progress(step, self.identity), self.keep + extra
        try:
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
        """Raise an error where the last checkpoint could not be written.

        Raises:
            RunError: the last thing to be saved was not.
        """
        if self.failure:
            raise RunError(
                f"step {step} could not be saved: {self.failure}. What was saved before it is in "
                f"{self.folder.checkpoints}; --resume goes on from there"
            )
