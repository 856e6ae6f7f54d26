"""When it is time for what a run does every so often."""

from sslkit.clock import Clock, Duration


def is_logged(clock: Clock, every: int) -> bool:
    """Whether the step about to be taken, or just taken, gets a row: every so many, the first and the last."""
    done = clock.step + 1
    return done in (1, clock.total_steps) or done % every == 0


def has_rank(clock: Clock, log_every: int, rank_every: int) -> bool:
    """Whether a step's row says what is costly: the first row after every so many steps, the first and the last."""
    done = clock.step + 1
    return done in (1, clock.total_steps) or done // rank_every > (done - log_every) // rank_every


def is_due(every: str | None, clock: Clock) -> bool:
    """Whether a cadence falls between the last step and the next.

    Args:
        every: a duration, taken as at least one step; None never falls anywhere.
        clock: of the next step. The end of a run is no moment between two steps.
    """
    if every is None or clock.step >= clock.total_steps:
        return False
    return clock.step % max(1, Duration.parse(every).steps(clock)) == 0
