"""Time in a run: the step, from which schedules, collapse operators and teacher updates are computed."""

import math
from dataclasses import dataclass
from typing import Literal

from sslkit.errors import RecipeError


@dataclass(frozen=True)
class Clock:
    """A moment of a run, counted in optimizer steps.

    Args:
        step: steps already taken, from 0.
        total_steps: steps of the whole run, at least 1.
        steps_per_epoch: steps in one pass over the data, at least 1.
    """

    step: int = 0
    total_steps: int = 1
    steps_per_epoch: int = 1

    @property
    def epoch(self) -> int:
        """Passes over the data already completed, from 0."""
        return self.step // self.steps_per_epoch

    @property
    def total_epochs(self) -> int:
        """Passes over the data that the run starts, a partial last one included."""
        return -(-self.total_steps // self.steps_per_epoch)

    @property
    def is_epoch_end(self) -> bool:
        """Whether this is the last step of a pass over the data."""
        return (self.step + 1) % self.steps_per_epoch == 0

    def at(self, step: int) -> "Clock":
        """Return the clock of the same run at another step."""
        return Clock(step, self.total_steps, self.steps_per_epoch)


@dataclass(frozen=True)
class Duration:
    """A length of time in a recipe: ``30 epochs``, ``0.5 epochs`` or ``5000 steps``."""

    amount: float
    unit: Literal["epochs", "steps"]

    @classmethod
    def parse(cls, text: "str | Duration") -> "Duration":
        """Return the duration that a text gives; a `Duration` is returned unchanged.

        Raises:
            RecipeError: the text is not a non-negative number followed by ``epochs`` or ``steps``.
        """
        if isinstance(text, Duration):
            return text
        amount, _, unit = str(text).strip().partition(" ")
        # "1 epoch" and "2 epochs" are both fine.
        unit = unit.strip().removesuffix("s") + "s"
        try:
            number = float(amount)
        except ValueError:
            number = -1.0
        if not 0 <= number < math.inf or unit not in ("epochs", "steps"):
            raise RecipeError(f"a duration is written like '30 epochs' or '5000 steps', not {text!r}")
        return cls(number, unit)  # type: ignore[arg-type]

    def steps(self, clock: Clock) -> int:
        """Return the length in optimizer steps."""
        per_unit = clock.steps_per_epoch if self.unit == "epochs" else 1
        return round(self.amount * per_unit)

    def epochs(self, clock: Clock) -> float:
        """Return the length in passes over the data."""
        return self.amount if self.unit == "epochs" else self.amount / clock.steps_per_epoch

    def __str__(self) -> str:
        return f"{self.amount:g} {self.unit}"
