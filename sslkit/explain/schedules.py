"""Tables of a run: its schedules at three steps, and its durations in steps and in epochs."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from sslkit.clock import Clock, Duration
from sslkit.recipe import Recipe
from sslkit.recipe.build import Builder
from sslkit.recipe.signature import parameters
from sslkit.recipe.specification import ComponentSpec
from sslkit.recommendation import Component, RunContext
from sslkit.schedules import value_at

MOMENTS = ("first step", "middle", "last step")
"""Column titles of the schedules."""

DURATION = re.compile(r"[\d.]+ (epoch|step)s?")


def component_descriptions(builder: Builder, context: RunContext) -> dict[str, list[str]]:
    """Return what components describe of a run (`Component.describe`): by name, one phrase for each of `MOMENTS`."""
    descriptions: dict[str, list[str]] = {}
    for moment in _moments(context.clock):
        for section in ("optimization", "method", "views"):
            for _, component in builder.components(section):
                if isinstance(component, Component):
                    for name, phrase in component.describe(replace(context, clock=moment)):
                        descriptions.setdefault(name, []).append(phrase)
    return descriptions


def schedule_rows(builder: Builder, clock: Clock, descriptions: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return rows of a name and its values at `MOMENTS`: scheduled numbers, and descriptions that change.

    Args:
        builder: builder of the recipe.
        clock: any step of the run.
        descriptions: from `component_descriptions`.
    """
    numbers = [_numbers(builder, moment) for moment in _moments(clock)]
    rows = [[name, *(f"{values[name]:.4g}" for values in numbers)] for name in numbers[0]]
    return rows + [[name, *phrases] for name, phrases in descriptions.items() if len({*phrases}) > 1]


def duration_rows(recipe: Recipe, clock: Clock) -> list[list[str]]:
    """Return a row for each duration of a recipe: key, steps, epochs, and a note if it is longer than the run."""
    return [_duration_row(key, duration, clock) for key, duration in _durations("", recipe.root)]


def _moments(clock: Clock) -> list[Clock]:
    return [clock.at(step) for step in (0, clock.total_steps // 2, clock.total_steps - 1)]


def _numbers(builder: Builder, clock: Clock) -> dict[str, float]:
    """Return learning rate, weight decay and the logged numbers of teacher update and collapse operator."""
    method, plan = builder.build("method"), builder.build("optimization")
    numbers = {"learning_rate": plan.learning_rate(clock), "weight_decay": value_at(plan.weight_decay, clock)}
    for component in (method.teacher, method.collapse):
        metrics = component.metrics(clock) if component else {}
        # Tensors measure state (center_norm), which means nothing before the first step.
        numbers |= {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return numbers


def _duration_row(key: str, duration: Duration, clock: Clock) -> list[str]:
    note = "longer than the run" if duration.steps(clock) > clock.total_steps else ""
    return [key, f"{duration.steps(clock):,}", f"{duration.epochs(clock):.4g}", note]


def _durations(key: str, value: Any) -> Iterator[tuple[str, Duration]]:
    """Yield the key and the value of every duration above 0 in a recipe value."""
    if isinstance(value, ComponentSpec):
        # Defaults of a section are in effect; that of a component may not be (the start of a queue of size 0).
        names = value.given if value.name else parameters(value.cls)
        value = {name: value.at(name) for name in names}
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _durations(f"{key}.{name}".strip("."), item)
    elif isinstance(value, str) and DURATION.fullmatch(value):
        duration = Duration.parse(value)
        if duration.amount:
            yield key, duration
