"""When a run logs, saves and evaluates."""

from dataclasses import dataclass

from sslkit.clock import Clock, Duration


@dataclass(frozen=True)
class Intervals:
    """The cadence of a run: what is due at a step.

    Args:
        log_every: steps between two rows of metrics.jsonl.
        rank_every: steps between two rows with the effective rank, which is costly.
        checkpoint_every: time between two checkpoints.
        evaluate_every: time between two evaluations; None evaluates at the end only.
    """

    log_every: int = 10
    rank_every: int = 100
    checkpoint_every: str | None = "1 epochs"
    evaluate_every: str | None = None

    def logs(self, clock: Clock) -> bool:
        """Whether the step about to be taken, or just taken, gets a row; the first and the last always do."""
        done = clock.step + 1
        return done in (1, clock.total_steps) or done % self.log_every == 0

    def measures_rank(self, clock: Clock) -> bool:
        """Whether a step's row has the effective rank: the first row of each interval, the first and the last."""
        done = clock.step + 1
        is_new = done // self.rank_every > (done - self.log_every) // self.rank_every
        return done in (1, clock.total_steps) or is_new

    def saves(self, clock: Clock) -> bool:
        """Whether a checkpoint is due before the step of this clock."""
        return _is_due(self.checkpoint_every, clock)

    def evaluates(self, clock: Clock) -> bool:
        """Whether an evaluation is due before the step of this clock."""
        return _is_due(self.evaluate_every, clock)

    def synchronizes(self, clock: Clock) -> bool:
        """Whether processes wait for one another before the step of this clock anyway."""
        return clock.step % self.log_every == 0 or self.saves(clock) or self.evaluates(clock)


def _is_due(every: str | None, clock: Clock) -> bool:
    """Whether an interval, at least one step long, ends between the last step and the next; never at a run's end."""
    if every is None or clock.step >= clock.total_steps:
        return False
    return clock.step % max(1, Duration.parse(every).steps(clock)) == 0
