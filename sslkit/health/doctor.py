"""Diagnose a run from its folder: the verdict over time, its probable causes, and figure 7 of the DINO paper."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from sslkit.errors import SSLKitError
from sslkit.explain.recommendations import recommendations, run_context
from sslkit.health.images import image_causes
from sslkit.health.symptoms import ln_k
from sslkit.health.verdict import Verdict, causes, judge
from sslkit.paths import local_path
from sslkit.recipe.loading import load
from sslkit.recommendation import Recommendation
from sslkit.run_folder.folder import RunFolder
from sslkit.run_folder.metrics_log import read_metrics
from sslkit.run_folder.results import read_results

LARGEST = 1e100
"""Of the numbers of a row: float32 ends below, and sums of such rows are finite."""


@dataclass(frozen=True)
class Diagnosis:
    """A run, looked at afterwards.

    Args:
        name: what to call it: the folder's name.
        folder: the run folder.
        rows: of metrics.jsonl.
        results: of results.json.
        total_steps: that the recipe asks for.
        course: the verdicts, each where it came; the last one stands.
        causes: what in the recipe or in the images is known to lead to the last one.
        unknown: why the recipe could not be asked for causes; empty where it could.
    """

    name: str
    folder: Path
    rows: Sequence[Mapping[str, float]]
    results: Sequence[Mapping[str, Any]]
    total_steps: int
    course: Sequence[Verdict]
    causes: Sequence[Recommendation] = ()
    unknown: str = ""

    @property
    def verdict(self) -> Verdict:
        """How the run stands at its last row."""
        return self.course[-1]

    @property
    def epochs_a_step(self) -> float:
        """The share of the images that a step sees."""
        return self.rows[-1]["epoch"] / self.rows[-1]["step"]

    @property
    def has_prototypes(self) -> bool:
        """Whether its targets are distributions over prototypes, which figure 7 is about."""
        return self.most_entropy is not None

    @property
    def most_entropy(self) -> float | None:
        """The entropy, ln K, of uniform targets; None without prototypes."""
        # The last row of a run that ended in numbers that are not finite has none of them.
        return next((most for row in reversed(self.rows) if (most := ln_k(row)) is not None), None)


def diagnose_run(folder: Path) -> Diagnosis:
    """Look at a run, finished or not.

    Raises:
        SSLKitError: the folder holds no run, or one without a row.
    """
    run = RunFolder(local_path(folder))
    try:
        rows, results = read_metrics(run.metrics), read_results(run.results)
    except RecursionError as error:
        raise SSLKitError(
            f"{run.path} is damaged: {run.metrics.name} or {run.results.name} is nested deeply"
        ) from error
    if not rows:
        holds = "a run without a row yet" if (run.path / "recipe.yaml").exists() else "no run"
        raise SSLKitError(f"{folder} holds {holds}. RUN is the folder of sslkit train, with metrics.jsonl in it.")
    for row in rows:
        _check(row, run.metrics)
    found: list[Recommendation] = []
    unknown, total = "", int(rows[-1]["step"])
    try:
        found, total = _ask_recipe(run.path / "recipe.yaml", rows[-1])
    except (SSLKitError, KeyError) as error:
        unknown = f"a row lacks {error}" if isinstance(error, KeyError) else str(error)
    of_images = cache(lambda: _ask_images(run.path / "recipe.yaml"))
    course = _course(rows, results, total, of_images)
    if course[-1].asks_for_causes:
        found = [*found, *of_images()]
    name = run.path.resolve().name
    return Diagnosis(name, run.path, rows, results, total, course, causes(course[-1], found), unknown)


def _check(row: Mapping[str, Any], path: Path) -> None:
    """Refuse a row that no run has written.

    Raises:
        SSLKitError: a number is missing, is none, or is not finite.
    """
    wrong = [name for name in {"step", "epoch", "loss", *row} if not _is_number(row.get(name))]
    wrong += [name for name in ("step", "epoch") if not wrong and not (row.get(name) or 0) > 0]
    if wrong:
        raise SSLKitError(
            f"{path} is damaged: the row of step {row['step']} has no number, or one out of range, as "
            f"{', '.join(sorted(wrong))}"
        )


def _is_number(value: Any) -> bool:
    """Whether a row may hold this: a finite number, or null in place of one that is not."""
    return value is None or (isinstance(value, int | float) and abs(value) < LARGEST)


def _course(
    rows: Sequence[Mapping[str, float]],
    results: Sequence[Mapping[str, Any]],
    total: int,
    of_images: Callable[[], Sequence[Recommendation]],
) -> list[Verdict]:
    """Return each verdict that differs from the one before, as the run would have met them."""
    course: list[Verdict] = []
    for i in range(1, len(rows) + 1):
        # Rows that `sslkit evaluate` added have no step: nobody knows when they were measured.
        then = [row for row in results if row["step"] is not None and row["step"] <= rows[i - 1]["step"]]
        verdict = judge(rows[:i], then, total, of_images)
        if not course or course[-1].name != verdict.name:
            course.append(verdict)
        else:
            course[-1] = replace(verdict, step=course[-1].step)
    return course


def _ask_images(path: Path) -> Sequence[Recommendation]:
    """Return what is wrong with the images of a run's recipe, if they are still there: nothing is downloaded."""
    try:
        recipe = load(str(path), [])
        place = recipe.root.at("data.train").given.get("path")
        if place is not None and not Path(place).expanduser().exists():
            return ()
        return list(image_causes(recipe.builder().build("data.train")))
    except SSLKitError:
        return ()


def _ask_recipe(path: Path, row: Mapping[str, float]) -> tuple[list[Recommendation], int]:
    """Return the recommendations for a run's recipe, and its steps; the images need not be there any more."""
    recipe = load(str(path), [])
    builder = recipe.builder()
    plan = builder.build("optimization")
    num_images = round(row["step"] / row["epoch"]) * plan.batch_size
    context = run_context(builder, num_images)
    return recommendations(recipe, builder, context), context.clock.total_steps
