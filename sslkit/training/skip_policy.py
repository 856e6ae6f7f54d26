"""What a run does about steps that moved nothing because a number was not finite."""

from sslkit.checkpoint.manager import CheckpointManager
from sslkit.errors import RunError
from sslkit.run_folder.skipped_steps import SkippedSteps


class SkipPolicy:
    """Goes on after a few skipped steps, rolls back after too many in a row, and ends the run after too many of those.

    Args:
        skipped: the steps that were skipped.
        checkpoints: of the run.
        limit: skipped steps in a row after which the run rolls back, at least 1.
        roll_backs: how often it may.
        precision: of the run.
    """

    def __init__(
        self, skipped: SkippedSteps, checkpoints: CheckpointManager, limit: int, roll_backs: int, precision: str
    ) -> None:
        self.skipped, self.checkpoints = skipped, checkpoints
        self.limit, self.roll_backs, self.precision = limit, roll_backs, precision

    @property
    def extra_checkpoints(self) -> int:
        """Checkpoints to keep beyond the usual number: during a streak, the one from before it."""
        return int(bool(self.skipped.streak))

    def has_news(self) -> bool:
        """Whether anything has moved since the newest checkpoint; a roll-back needs what was saved before a streak."""
        return not self.skipped.streak or self.checkpoints.step < self.skipped.streak[0]["step"] - 1

    def apply(self, step: int) -> str | None:
        """Roll back if the last steps were skipped, as many as the limit.

        Args:
            step: optimizer steps taken.

        Returns:
            What happened, for the user; None where the run simply goes on.

        Raises:
            RunError: no roll-back is left, or there is no checkpoint from before the streak.
        """
        return self._roll_back(step) if len(self.skipped.streak) >= self.limit else None

    def _roll_back(self, step: int) -> str:
        """Load what was saved before the streak, but keep the clock, so that the images of the streak are left out.

        What was not finite once would not be the second time either (PaLM §5.1, arXiv:2204.02311, skips such batches).
        """
        skipped, load = self.skipped, self.checkpoints.load
        # A checkpoint of the very step before them would be what is there already.
        to = load(before=skipped.streak[0]["step"] - 1) if skipped.roll_backs < self.roll_backs else None
        last = skipped.rolled_back
        if last is not None and to is not None and to < last["step"]:
            # What was saved between the two led to the streak before; and what it went back to has led to this one.
            to = load(before=last["rolled_back_to"])
        if to is None:
            folder = self.checkpoints.folder
            raise RunError(
                f"{skipped}. {skipped.hint(self.precision)} Their images are in {folder.skipped}, "
                f"checkpoints in {folder.checkpoints}; --resume --runtime.roll_backs {skipped.roll_backs + 1} "
                "goes on from one that is older than these steps, without these images"
            )
        message = f"{skipped}; going on from the networks of step {to}, without these images"
        skipped.roll_back(step, to)
        return message
