"""Schedules: hyper-parameters that change during a run, as pure functions of the clock."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Literal

from sslkit.clock import Clock, Duration
from sslkit.errors import NotSupported, OutOfRange, RecipeError
from sslkit.recommendation import Component, Recommendation, RunContext, too_long

Every = Literal["step", "epoch"]


class Schedule(Component, ABC):
    """A hyper-parameter that changes during a run, as a pure function of the clock.

    Pure, so that a resumed run has the values of an uninterrupted one without any state in its checkpoints.
    """

    @abstractmethod
    def __call__(self, clock: Clock) -> float:
        """Return the value for step ``clock.step``."""

    def scaled(self, factor: float) -> "Schedule":
        """Return this schedule with its peak multiplied by a factor (linear learning-rate scaling, arXiv:1706.02677).

        The value that it rises from is multiplied as well; the value that it falls to is not, as in DINO's published
        code.

        Args:
            factor: batch size over reference batch size.

        Raises:
            NotSupported: the schedule has no known peak.
        """
        raise NotSupported(f"{type(self).__name__} cannot be scaled with the batch size")

    @property
    def levels(self) -> Mapping[str, float]:
        """The values that the schedule interpolates, by argument name; empty if they are not known."""
        return {}


class Constant(Schedule):
    """The same value at every step.

    Args:
        value: the value.
    """

    def __init__(self, value: float) -> None:
        self.value = value

    def __call__(self, clock: Clock) -> float:
        return self.value

    def scaled(self, factor: float) -> "Constant":
        return Constant(self.value * factor)

    @property
    def levels(self) -> Mapping[str, float]:
        return {"value": self.value}


class Cosine(Schedule):
    """Half a cosine from ``start`` to ``end``, after a linear warm-up from ``warmup_from`` to ``start``.

    With n moments of warm-up and N in all, moment i of the warm-up is
    ``warmup_from + (start - warmup_from) * i / (n - 1)`` and moment i after it is
    ``end + (start - end) * (1 + cos(pi * (i - n) / (N - n))) / 2``: the peak is held twice and ``end`` is
    approached but not reached, as in DINO's published code (arXiv:2104.14294, implementation).

    Args:
        start: the peak, where the cosine begins.
        end: the value that the cosine approaches at the end of the run.
        warmup: length of the warm-up, as ``10 epochs``.
        warmup_from: value at the first step of the warm-up.
        every: ``step`` changes the value each step; ``epoch`` changes it once an epoch and counts moments in epochs
            (MoCo-v2's learning rate).

    Raises:
        RecipeError: a warm-up that is not a whole number of epochs, with ``every`` epoch.
    """

    def __init__(
        self,
        start: float,
        end: float,
        warmup: str | Duration = "0 steps",
        warmup_from: float = 0.0,
        every: Every = "step",
    ) -> None:
        self.start = start
        self.end = end
        self.warmup = _checked("Cosine", "warmup", Duration.parse(warmup), every)
        self.warmup_from = warmup_from
        self.every = every

    def __call__(self, clock: Clock) -> float:
        now, total = _position(clock, self.every)
        warmup = _length(self.warmup, clock, self.every)
        if now < warmup:
            return _ramp(self.warmup_from, self.start, now, warmup)
        # As in DINO's published code: the last step does not reach ``end`` itself.
        progress = (now - warmup) / max(1, total - warmup)
        return self.end + (self.start - self.end) * (1 + math.cos(math.pi * progress)) / 2

    def scaled(self, factor: float) -> "Cosine":
        return Cosine(self.start * factor, self.end, self.warmup, self.warmup_from * factor, self.every)

    @property
    def levels(self) -> Mapping[str, float]:
        first = {"warmup_from": self.warmup_from} if self.warmup.amount else {}
        return {"start": self.start, "end": self.end, **first}

    def recommend(self, context: RunContext) -> Iterable[Recommendation]:
        return _too_long("warmup", self.warmup, self.every, context)


class Warmup(Schedule):
    """A linear warm-up from ``start`` to ``end``, then ``end``.

    Moment i of n is ``start + (end - start) * i / (n - 1)``. DINO's teacher temperature (arXiv:2104.14294, §4 and
    appendix D), which its published code changes once an epoch.

    Args:
        start: the first value.
        end: the value after the warm-up.
        over: length of the warm-up, as ``30 epochs``.
        every: ``epoch`` changes the value once an epoch; ``step`` changes it each step.

    Raises:
        RecipeError: a warm-up that is not a whole number of epochs, with ``every`` epoch.
    """

    def __init__(self, start: float, end: float, over: str | Duration, every: Every = "epoch") -> None:
        self.start = start
        self.end = end
        self.over = _checked("Warmup", "over", Duration.parse(over), every)
        self.every = every

    def __call__(self, clock: Clock) -> float:
        now, _ = _position(clock, self.every)
        length = _length(self.over, clock, self.every)
        return _ramp(self.start, self.end, now, length) if now < length else self.end

    def scaled(self, factor: float) -> "Warmup":
        # Its end is its peak.
        return Warmup(self.start * factor, self.end * factor, self.over, self.every)

    @property
    def levels(self) -> Mapping[str, float]:
        return {"start": self.start, "end": self.end}

    def recommend(self, context: RunContext) -> Iterable[Recommendation]:
        return _too_long("over", self.over, self.every, context)


def value_at(number: float | Schedule, clock: Clock) -> float:
    """Return the value of a schedule at a step; a plain number is returned unchanged."""
    return number(clock) if isinstance(number, Schedule) else number


def levels_of(name: str, number: object) -> dict[str, float]:
    """Return the levels of a schedule, or a plain number, by recipe key; empty for other values.

    The built-in schedules stay between their levels, so a bound on all levels is a bound on every step.

    Args:
        name: recipe key of the value.
        number: a number, a schedule, or a value of another type.
    """
    if isinstance(number, Schedule):
        return {f"{name}.{level}": value for level, value in number.levels.items()}
    return {name: number} if isinstance(number, int | float) else {}


def check_range(owner: str, name: str, number: object, interval: str) -> None:
    """Raise an error where a number, or a level of a schedule, is not in an interval; None is accepted.

    Args:
        owner: the class that takes it, for the message.
        name: of its argument.
        number: a number, a schedule or None.
        interval: as in mathematics: ``[0, 1)`` contains 0 but not 1, and ``(0, inf)`` neither 0 nor infinity.

    Raises:
        OutOfRange: naming the argument and the interval.
    """
    least, most = map(float, interval[1:-1].split(","))
    for key, level in levels_of(name, number).items():
        is_end = (level == least and interval[0] == "[") or (level == most and interval[-1] == "]")
        if not (least < level < most or is_end):
            raise OutOfRange(f"the {key} of {owner} lies in {interval}, not {level}")


def rewritten(number: float | Schedule, change: Callable[[float], float]) -> Any:
    """Return a number, or a schedule with each of its levels, changed, in the form of a recipe.

    Args:
        number: a number or a schedule.
        change: maps an old value to a new one.

    Returns:
        A number, ``{class name: arguments}``, or None for a schedule without levels.
    """
    if not isinstance(number, Schedule):
        return change(number)
    levels = {name: change(level) for name, level in number.levels.items()}
    return {type(number).__name__: levels} if levels else None


def _position(clock: Clock, every: Every) -> tuple[int, int]:
    return (clock.epoch, clock.total_epochs) if every == "epoch" else (clock.step, clock.total_steps)


def _length(duration: Duration, clock: Clock, every: Every) -> int:
    # With ``every`` epoch, `_checked` has left whole epochs, or nothing in either unit.
    return int(duration.amount) if every == "epoch" else duration.steps(clock)


def _checked(owner: str, key: str, duration: Duration, every: Every) -> Duration:
    """Return the duration; with ``every`` epoch, refuse one that is not a whole number of epochs."""
    if every == "epoch" and duration.amount and (duration.unit == "steps" or duration.amount % 1):
        raise RecipeError(
            f"{owner} moves once an epoch, so its {key} is a whole number of epochs, not {duration}; or add every: step"
        )
    return duration


def _too_long(key: str, duration: Duration, every: Every, context: RunContext) -> Iterator[Recommendation]:
    """Yield the recommendation of `too_long`; a shorter duration in steps is proposed together with ``every: step``."""
    for recommendation in too_long(key, duration, context):
        in_epochs = Duration.parse(recommendation.changes[key]).unit == "epochs"
        unit = {} if every == "step" or in_epochs else {"every": "step"}
        yield replace(recommendation, changes={**recommendation.changes, **unit})


def _ramp(start: float, end: float, now: int, length: int) -> float:
    """Return point ``now`` of ``length`` equally spaced points, both ends included."""
    return start + (end - start) * now / max(1, length - 1)
