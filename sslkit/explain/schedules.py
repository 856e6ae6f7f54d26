"""Tabulate the schedules of a run at three moments, and its durations in steps and epochs."""

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

DURATION = re.compile(r"[\d.]+ (epoch|step)s?")


def component_descriptions(builder: Builder, context: RunContext) -> dict[str, list[str]]:
    """Return the descriptions that components give of themselves at `MOMENTS`, by name."""
    descriptions: dict[str, list[str]] = {}
    for moment in _moments(context.clock):
        for section in ("optimization", "method", "views"):
            for _, part in builder.components(section):
                if isinstance(part, Component):
                    for name, phrase in part.describe(replace(context, clock=moment)):
                        descriptions.setdefault(name, []).append(phrase)
    return descriptions


def schedule_rows(builder: Builder, clock: Clock, descriptions: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Return name and values at `MOMENTS` of the scheduled numbers, and of the descriptions that change."""
    courses = [_numbers(builder, moment) for moment in _moments(clock)]
    rows = [[name, *(f"{course[name]:.4g}" for course in courses)] for name in courses[0]]
    return rows + [[name, *phrases] for name, phrases in descriptions.items() if len({*phrases}) > 1]


def duration_rows(recipe: Recipe, clock: Clock) -> list[list[str]]:
    """Return key, steps, epochs and a note of every duration of a recipe; of a component, what the recipe says."""
    return [_span(key, span, clock) for key, span in _durations("", recipe.root)]


def _moments(clock: Clock) -> list[Clock]:
    return [clock.at(step) for step in (0, clock.total_steps // 2, clock.total_steps - 1)]


def _numbers(builder: Builder, clock: Clock) -> dict[str, float]:
    method, plan = builder.build("method"), builder.build("optimization")
    numbers = {"learning_rate": plan.learning_rate(clock), "weight_decay": value_at(plan.weight_decay, clock)}
    for part in (method.teacher, method.collapse):
        metrics = part.metrics(clock) if part else {}
        numbers |= {name: value for name, value in metrics.items() if isinstance(value, int | float)}
    return numbers


def _span(key: str, span: Duration, clock: Clock) -> list[str]:
    note = "longer than the run" if span.steps(clock) > clock.total_steps else ""
    return [key, f"{span.steps(clock):,}", f"{span.epochs(clock):.4g}", note]


def _durations(key: str, value: Any) -> Iterator[tuple[str, Duration]]:
    """Yield every duration that is not nothing, with its key.

    A component's default may be without effect, as the start of a queue that there is not; a section's has one.
    """
    if isinstance(value, ComponentSpec):
        names = value.given if value.name else parameters(value.cls)
        value = {name: value.at(name) for name in names}
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from _durations(f"{key}.{name}".strip("."), item)
    elif isinstance(value, str) and DURATION.fullmatch(value):
        span = Duration.parse(value)
        if span.amount:
            yield key, span
