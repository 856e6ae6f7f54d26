"""A run's numbers for accelerate's trackers; metrics.jsonl and results.json stay the source of truth."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sslkit.run_folder.atomic_write import write_text
from sslkit.run_folder.tracker import Moment, Tracker, check, start

STATE = "trackers.json"
"""Says which runs trackers go on with, and what they were told already of the steps that are done again."""

Told = tuple[Moment, dict[str, float]]


class Trackers:
    """Those that a recipe wants told of its run; only the main process starts them.

    Steps that are done again after a resume are not told again: most trackers cannot take anything back.

    Args:
        wanted: ``runtime.trackers``.
        project: what trackers with projects call theirs.
        folder: the run's.

    Raises:
        UnknownName: accelerate knows no such tracker.
        RecipeError: it is not installed.
    """

    def __init__(self, wanted: Sequence[str | Mapping[str, Mapping[str, Any]]], project: str, folder: Path) -> None:
        self.arguments: dict[str, Mapping[str, Any]] = {}
        for each in wanted:
            self.arguments |= {each: {}} if isinstance(each, str) else each
        for name in self.arguments:
            check(name)
        self.project, self.folder = project, folder
        self.started: list[Tracker] = []

    def start(self, recipe: str) -> None:
        """Start each, or go on with the run of it that the folder names.

        Args:
            recipe: resolved, as YAML.

        Raises:
            RecipeError: one does not take its arguments.
        """
        state = json.loads(self._state.read_text()) if self._state.exists() else {}
        for name, arguments in self.arguments.items():
            tracker = start(name, arguments, self.project, self.folder, state.get(name), recipe)
            if tracker is not None:
                self.started.append(tracker)

    def go_on(self, first: int, metrics: Iterable[Mapping[str, Any]], results: Iterable[Mapping[str, Any]]) -> None:
        """Tell those that are new what was before; learn what the others were told of what will be done again.

        Args:
            first: the step that the run goes on from.
            metrics: rows of metrics.jsonl, with those of later steps.
            results: rows of results.json, with those of this step and later ones.
        """
        history = [*_moments(metrics, results)]
        again = {moment for moment, _ in history if _comes_again(moment, first)}
        for tracker in self.started:
            if not tracker.goes_on:
                _tell([tracker], (told for told in history if told[0] not in again))
            elif tracker.resume_support and not tracker.resume_support.drops:
                tracker.told = again | {moment for moment in tracker.told if _comes_again(moment, first)}
        if self.started or self._state.exists():
            states = {tracker.name: state for tracker in self.started if (state := tracker.state())}
            write_text(self._state, json.dumps(states) + "\n")

    def log(self, row: Mapping[str, Any]) -> None:
        """Tell a row of metrics.jsonl."""
        _tell(self.started, _moments([row], []))

    def evaluated(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Tell rows of results.json; the names are network/evaluator/metric."""
        _tell(self.started, _moments([], rows))

    def close(self) -> None:
        """Have each end its run."""
        while self.started:
            self.started.pop().close()

    @property
    def _state(self) -> Path:
        return self.folder / STATE


def _moments(metrics: Iterable[Mapping[str, Any]], results: Iterable[Mapping[str, Any]]) -> Iterator[Told]:
    """Yield the numbers of each moment in the order of time, without those that are not finite."""
    rows = [((row["step"], ""), row) for row in metrics]
    for row in results:
        if row["step"] is not None:
            named = {f"{row['network']}/{name}": value for name, value in row["metrics"].items()}
            rows.append(((row["step"], row["network"]), named))
    for moment, row in sorted(rows, key=lambda each: each[0][0]):
        numbers = {name: value for name, value in row.items() if name != "step" and _is_finite(value)}
        yield (int(moment[0]), moment[1]), numbers


def _tell(trackers: Sequence[Tracker], history: Iterable[Told]) -> None:
    for moment, numbers in history:
        for tracker in trackers:
            if moment not in tracker.told:
                tracker.tell(moment, numbers)


def _comes_again(moment: Moment, first: int) -> bool:
    """Whether a run that goes on from a step does this again: its evaluation is, its own row is not."""
    step, network = moment
    return step >= first if network else step > first


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
