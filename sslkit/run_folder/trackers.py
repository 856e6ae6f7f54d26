"""Log a run to accelerate's trackers; metrics.jsonl and results.json stay the source of truth."""

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sslkit.run_folder.atomic_write import write_text
from sslkit.run_folder.tracker import Moment, Tracker, check, start

STATE = "trackers.json"
"""Which runs of trackers are resumed, and what was logged to them already of the steps that are repeated."""

Entry = tuple[Moment, dict[str, float]]


class Trackers:
    """The trackers of a run; only the main process starts them.

    Steps that are repeated after a resume are not logged again: most trackers cannot take anything back.

    Args:
        wanted: ``runtime.trackers``.
        project: of trackers that have projects.
        folder: of the run.

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
        """Start each tracker, or resume its run that the folder names.

        Args:
            recipe: resolved, as YAML.

        Raises:
            RecipeError: a tracker does not take its arguments.
        """
        state = json.loads(self._state.read_text()) if self._state.exists() else {}
        for name, arguments in self.arguments.items():
            tracker = start(name, arguments, self.project, self.folder, state.get(name), recipe)
            if tracker is not None:
                self.started.append(tracker)

    def resume(self, first: int, metrics: Iterable[Mapping[str, Any]], results: Iterable[Mapping[str, Any]]) -> None:
        """Log the rows so far to new trackers, and keep in mind what the others have of the steps to be repeated.

        Args:
            first: the step that the run is resumed from.
            metrics: rows of metrics.jsonl, with those of later steps.
            results: rows of results.json, with those of this step and later ones.
        """
        history = [*_moments(metrics, results)]
        again = {moment for moment, _ in history if _is_repeated(moment, first)}
        for tracker in self.started:
            if not tracker.is_resumed:
                _log([tracker], (entry for entry in history if entry[0] not in again))
            elif tracker.resume_support and not tracker.resume_support.drops:
                tracker.logged = again | {moment for moment in tracker.logged if _is_repeated(moment, first)}
        if self.started or self._state.exists():
            states = {tracker.name: state for tracker in self.started if (state := tracker.state())}
            write_text(self._state, json.dumps(states) + "\n")

    def log(self, row: Mapping[str, Any]) -> None:
        """Log a row of metrics.jsonl."""
        _log(self.started, _moments([row], []))

    def evaluated(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Log rows of results.json; the names are network/evaluator/metric."""
        _log(self.started, _moments([], rows))

    def close(self) -> None:
        """End the run of each tracker."""
        while self.started:
            self.started.pop().close()

    @property
    def _state(self) -> Path:
        return self.folder / STATE


def _moments(metrics: Iterable[Mapping[str, Any]], results: Iterable[Mapping[str, Any]]) -> Iterator[Entry]:
    """Yield the numbers of each moment in the order of time, without those that are not finite."""
    rows = [((row["step"], ""), row) for row in metrics]
    for row in results:
        if row["step"] is not None:
            named = {f"{row['network']}/{name}": value for name, value in row["metrics"].items()}
            rows.append(((row["step"], row["network"]), named))
    for moment, row in sorted(rows, key=lambda each: each[0][0]):
        numbers = {name: value for name, value in row.items() if name != "step" and _is_finite(value)}
        yield (int(moment[0]), moment[1]), numbers


def _log(trackers: Sequence[Tracker], history: Iterable[Entry]) -> None:
    for moment, numbers in history:
        for tracker in trackers:
            if moment not in tracker.logged:
                tracker.log(moment, numbers)


def _is_repeated(moment: Moment, first: int) -> bool:
    """Whether a run that is resumed at a step repeats this: the evaluation of that step is repeated, its row is not."""
    step, network = moment
    return step >= first if network else step > first


def _is_finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
