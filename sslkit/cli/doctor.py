"""``sslkit doctor``: diagnose collapse of runs from their logged metrics."""

import shlex
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.text import Text

from sslkit.cli.arguments import plugin_words
from sslkit.cli.parser import CommandParser, path
from sslkit.cli.screen import Screen
from sslkit.progress import loading
from sslkit.recommendation import overrides

if TYPE_CHECKING:
    from sslkit.health.doctor import Diagnosis

EXAMPLES = """\
sslkit doctor RUN_FOLDER
sslkit doctor runs/both runs/no-centering --figure figure-7.png"""

MOMENTS = 8
"""Rows that are shown of a run."""

SHOWN = {
    "step": "step",
    "loss": "loss",
    "loss_below_chance": "below",
    "target_entropy": "entropy",
    "marginal_entropy": "marginal",
    "target_kl": "KL",
    "image_cosine": "cosine",
    "embedding_directions": "spread",
    "effective_rank": "rank",
}
"""Columns of metrics.jsonl that are shown, and their headings."""


def add_arguments(parser: CommandParser) -> None:
    """Declare what the command takes."""
    purpose = "whether runs, finished or not, learned, why not, and what to change"
    parser.describe("at least one RUN, a run folder", purpose, EXAMPLES)
    parser.add_argument("runs", metavar="RUN", nargs="+", type=path, help="run folders")
    parser.add_options().add_argument(
        "--figure",
        metavar="FILE",
        type=path,
        help=".png, .svg or .pdf of the curves; doctor.png in the first RUN without it",
    )


def run(args: Namespace) -> int:
    """Diagnose runs and draw their curves."""
    with loading():
        from sslkit.health.doctor import diagnose_run
        from sslkit.health.figure import check_path, save

    figure = args.figure or args.runs[0] / "doctor.png"
    found = [diagnose_run(folder) for folder in args.runs]
    check_path(figure)
    screen = Screen()
    for each in found:
        _show(screen, each)
    print(f"Figure: {save(found, figure)}")
    return 0


def _show(screen: Screen, run: "Diagnosis") -> None:
    """Print a run's verdict, how it came to it, and what to change."""
    screen.heading(run.name, f"step {run.rows[-1]['step']:.0f} of {run.total_steps} · {run.folder}")
    style = "bold red" if run.verdict.is_failure else "bold yellow" if run.verdict.asks_for_causes else "bold green"
    screen.columns([(Text(run.verdict.name, style), run.verdict.reason)])
    if len(run.course) > 1:
        screen.text("Since " + ", ".join(f"step {verdict.step}: {verdict.name}" for verdict in run.course))
    screen.gap()
    screen.heading("Course", "what each column is: docs/doctor.md")
    names = [name for name in SHOWN if any(row.get(name) is not None for row in run.rows)]
    screen.columns([[SHOWN[name] for name in names], *_moments(run.rows, names)], ["dim"] + [""] * (len(names) - 1))
    screen.gap()
    if run.verdict.is_failure or run.causes:
        _show_causes(screen, run)


def _moments(rows: Sequence[Mapping[str, float]], names: Sequence[str]) -> Iterator[list[str]]:
    """Yield rows spread evenly over a run, the first and the last among them."""
    last = len(rows) - 1
    for i in sorted({round(last * i / (MOMENTS - 1)) for i in range(MOMENTS)}):
        yield [_number(name, rows[i].get(name)) for name in names]


def _number(name: str, value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:.0f}" if name == "step" or abs(value) >= 100 else f"{value:.3f}"


def _show_causes(screen: Screen, run: "Diagnosis") -> None:
    from sslkit.health.verdict import NO_CAUSE

    screen.heading("Probable cause" if run.causes else "No cause is known")
    screen.columns(((("-", str(recommendation)) for recommendation in run.causes)), styles=("yellow", "yellow"))
    if not run.causes:
        screen.text(f"{NO_CAUSE}.")
    if run.unknown:
        screen.text(f"The recipe could not be asked: {run.unknown}")
    changes = [words for recommendation in run.causes for words in overrides(recommendation.fix)]
    if changes:
        screen.gap()
        screen.heading("To try")
        command = shlex.join(["sslkit", "train", str(run.folder / "recipe.yaml"), *plugin_words()])
        screen.code(" \\\n    ".join([command, *dict.fromkeys(changes)]))
    screen.gap()
