"""The context of a run that components see before it starts, and their recommendations."""

import math
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import yaml

from sslkit.clock import Clock, Duration

FailureMode = Literal[
    "divergence",
    "one-dimension collapse",
    "uniform collapse",
    "constant embeddings",
    "dimensional collapse",
    "not learning",
]
"""How a run can fail; `sslkit.health.symptoms` has the symptom of each."""

ANY_FAILURE: tuple[FailureMode, ...] = get_args(FailureMode)
"""For ``leads_to`` of what may fail in every way."""

SEVERAL_MOMENTS = 100
"""Moments of a run at which a schedule is looked at."""


@dataclass(frozen=True)
class RunContext:
    """The sizes and the schedule of a run, passed to its components before it starts.

    Args:
        num_images: training images.
        batch_size: images in a step, over all processes.
        clock: the run's time; its step is the moment in question.
        processes: that share each batch.
        micro_batches: that each process cuts its share into.
        student_views: views of an image that the student sees, S.
        teacher_views: views of an image that the teacher sees, T.
        num_prototypes: K of the head, or None.
        learning_rate: its highest value in the run.
        shares_weights: whether the teacher is the student itself.
        has_predictor: whether the student has one.
        has_operator: whether a collapse operator stands between teacher and loss.
        written_for: the context that the recipe file, or the command line, which sets the component was written for;
            None where it is not known.
    """

    num_images: int
    batch_size: int
    clock: Clock
    processes: int = 1
    micro_batches: int = 1
    student_views: int = 2
    teacher_views: int = 2
    num_prototypes: int | None = None
    learning_rate: float = 0.0
    shares_weights: bool = False
    has_predictor: bool = False
    has_operator: bool = True
    written_for: "RunContext | None" = None

    @property
    def local_images(self) -> int:
        """Images that pass the student of one process at a time."""
        return max(1, self.batch_size // self.processes // self.micro_batches)

    def at(self, step: int) -> "RunContext":
        """Return the same run at another step."""
        return replace(self, clock=self.clock.at(step))

    def moments(self) -> list[Clock]:
        """Return moments spread evenly over the run, the first and the last step among them."""
        last = self.clock.total_steps - 1
        # A set, since a short run has fewer steps than moments.
        steps = {round(last * i / (SEVERAL_MOMENTS - 1)) for i in range(SEVERAL_MOMENTS)}
        return [self.clock.at(step) for step in sorted(steps)]

    def share(self, of_run: float) -> Duration:
        """Return a share of the run: whole epochs where it is as long as one, else steps."""
        epochs = round(of_run * self.clock.total_steps / self.clock.steps_per_epoch)
        return Duration(epochs, "epochs") if epochs else Duration(round(of_run * self.clock.total_steps), "steps")

    def span(self, steps: float) -> str:
        """Return a length of time in words, in steps and in epochs."""
        if steps > self.clock.total_steps:
            return "longer than the run"
        return f"{counted(steps)} steps, {steps / self.clock.steps_per_epoch:.2g} epochs"


@dataclass(frozen=True)
class Recommendation:
    """A reason to change a component in a run, and the change.

    Args:
        reason: one sentence with its numbers, without a full stop.
        source: where that is known from ("DINO appendix D"); empty for what follows from the numbers.
        changes: values, as a recipe writes them, by dotted key below the part.
        is_warning: whether the run is likely to fail or to disappoint; otherwise a part should merely be adapted.
        leads_to: how it would fail.
        remedy: values by whole key that are a way out once it has failed so. They are not proposed before, since the
            other components may have been chosen on purpose.
    """

    reason: str
    source: str = ""
    changes: Mapping[str, Any] = field(default_factory=dict)
    is_warning: bool = True
    leads_to: tuple[FailureMode, ...] = ()
    remedy: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.reason} ({self.source})" if self.source else self.reason

    @property
    def fix(self) -> dict[str, Any]:
        """What to change once it has happened, values by whole key."""
        return {**self.changes, **self.remedy}


class Component:
    """Base of the classes that recipes name; it can describe a run and recommend changes before the run starts."""

    def describe(self, context: RunContext) -> Iterable[tuple[str, str]]:
        """Yield names and phrases of what it will do at the moment ``context.clock``, for `sslkit explain`."""
        return ()

    def recommend(self, context: RunContext) -> Iterable[Recommendation]:
        """Yield recommendations for a run; ``context.clock`` is the first step."""
        return ()


def overrides(changes: Mapping[str, Any]) -> list[str]:
    """Return changes, values by whole key, as words of a command line: ``--method.teacher EMA``."""
    return [shlex.join([f"--{key}", one_line(value)]) for key, value in changes.items()]


def one_line(value: Any) -> str:
    """Return plain data as YAML on one line."""
    text = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10_000).strip()
    return text.removesuffix("...").strip()


def counted(number: float) -> str:
    """Write a count: three digits, or all of a longer one."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def power_of_two(limit: float) -> int:
    """Return the largest power of two up to ``limit``, at least 1."""
    return 2 ** max(0, math.floor(math.log2(max(1.0, limit))))


def too_long(key: str, duration: Duration, context: RunContext) -> Iterable[Recommendation]:
    """Yield a recommendation where a warm-up, or a time of frozen parts, takes much of the run.

    Published ones take up to a third of their run: DINO 10 (learning rate) and 30 epochs (temperature) of 100 to 300,
    BYOL 10 of 40 to 1000.

    Args:
        key: where the duration stands.
        duration: how long.
        context: the run.
    """
    steps, total = duration.steps(context.clock), context.clock.total_steps
    if steps <= total / 3:
        return
    measure = "lasts as long as the run or longer" if steps >= total else f"takes {steps / total:.0%} of the run"
    yield Recommendation(
        f"{key} {measure}: {counted(steps)} of {counted(total)} steps",
        "DINO warms up over 10 to 30 of 300 epochs",
        {key: str(context.share(0.1))},
        is_warning=steps >= total,
    )
