"""What a run saves and takes up again: its checkpoints, and both backbones by themselves."""

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
from sslkit.run_folder.skipped_steps import SkippedSteps

logger = logging.getLogger("sslkit.training")


class Rows(Protocol):
    """Rows of a file, of which some may wait for room."""

    def sync(self) -> None:
        """Have every row on the disk, or raise OSError."""


class CheckpointManager:
    """A run's checkpoints; the main process writes them, every process takes them up.

    Args:
        folder: the run's.
        model: what learns.
        optimizer: over the student.
        executor: of the steps.
        identity: of the recipe.
        keep: checkpoints that stay.
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

    def load(self, before: int | None = None) -> int | None:
        """Take up the newest checkpoint, of fewer steps than ``before``, and return its step, or None.

        Raises:
            SSLKitError: it is another recipe's, or none is whole.
        """
        folder = self.folder.checkpoints
        step = load_newest(folder, self.model, self.optimizer, self.identity, self.executor, before)
        self.step = step or 0
        return step

    def save(self, step: int, rows: Iterable[Rows], skipped: SkippedSteps) -> Path | None:
        """Write a checkpoint, both backbones, and before them all rows, so that none is ahead of its rows.

        A run that has no room to save goes on: stopping would lose for certain what it learned since the last
        checkpoint, and room may be made before the next one.

        Args:
            step: optimizer steps taken.
            rows: of the run's files.
            skipped: during a streak one checkpoint more stays: what was saved before it.

        Returns:
            The checkpoint, or None where there is none: ``failure`` and a warning say why.
        """
        # Every process, before what can fail on the main one alone: an executor that shards gathers the shards here.
        state = self.executor.state_dict(self.model, self.optimizer)
        if rank() != 0:
            return None
        progress, keep = Progress(step, self.identity), self.keep + bool(skipped.streak)
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

    def has_news(self, skipped: SkippedSteps) -> bool:
        """Whether anything has moved since the newest checkpoint; a roll-back needs what was saved before a streak."""
        return not skipped.streak or self.step < skipped.streak[0]["step"] - 1

    def go_back(self, skipped: SkippedSteps, step: int, limit: int, precision: str) -> str:
        """Set everything but the clock back to before steps that moved nothing, so that their images are left out.

        What was not finite once would not be the second time either (PaLM §5.1, arXiv:2204.02311, skips such batches).

        Args:
            skipped: what was skipped, a streak at the end.
            step: optimizer steps taken.
            limit: how often a run may go back.
            precision: the run's.

        Returns:
            What happened, for the user.

        Raises:
            RunError: there is no such checkpoint, or the recipe does not want it so often.
        """
        # A checkpoint of the very step before them would be what is there already.
        to = self.load(before=skipped.streak[0]["step"] - 1) if skipped.roll_backs < limit else None
        last = skipped.rolled_back
        if last is not None and to is not None and to < last["step"]:
            # What was saved between the two led to the streak before; and what it went back to has led to this one.
            to = self.load(before=last["rolled_back_to"])
        if to is None:
            raise RunError(
                f"{skipped}. {skipped.hint(precision)} Their images are in {self.folder.skipped}, "
                f"checkpoints in {self.folder.checkpoints}; --resume --runtime.roll_backs {skipped.roll_backs + 1} "
                "goes on from one that is older than these steps, without these images"
            )
        said = f"{skipped}; going on from the networks of step {to}, without these images"
        skipped.roll_back(step, to)
        return said

    def check(self, step: int) -> None:
        """Refuse to end as if all were well.

        Raises:
            RunError: the last thing to be saved was not.
        """
        if self.failure:
            raise RunError(
                f"step {step} could not be saved: {self.failure}. What was saved before it is in "
                f"{self.folder.checkpoints}; --resume goes on from there"
            )
