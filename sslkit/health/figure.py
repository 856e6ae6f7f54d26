"""Figure 7 of the DINO paper (arXiv:2104.14294) of one's own runs: entropy of the targets, and KL to the student."""

import io
import math
from collections.abc import Sequence
from itertools import cycle
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from sslkit.errors import SSLKitError
from sslkit.health.doctor import Diagnosis
from sslkit.run_folder.atomic_write import write_bytes

COLORS = ("#2f6db5", "#d9822b", "#2e8b57", "#c0392b", "#7d5ba6", "#3aa6a6", "#b5892f", "#8a8f98")
GRAY = "#8a8f98"
FORMATS = (".png", ".svg", ".pdf")

DISTRIBUTIONS = (("target_entropy", "entropy of the targets, nats"), ("target_kl", "KL(targets || student), nats"))
EMBEDDINGS = (
    ("image_cosine", "cosine of the embeddings of different images"),
    ("embedding_directions", "directions along which embeddings vary"),
)


def check_path(path: Path) -> None:
    """Refuse a file that cannot be drawn.

    Raises:
        SSLKitError: another format, or a folder that is not there.
    """
    if path.suffix not in FORMATS:
        raise SSLKitError(f"--figure {path}: it can be {', '.join(FORMATS)}, such as {path.with_suffix('.png')}")
    if not path.parent.is_dir():
        raise SSLKitError(f"--figure {path}: there is no folder {path.parent}")


def save(found: Sequence[Diagnosis], path: Path) -> Path:
    """Draw runs into a file and return its path.

    Raises:
        SSLKitError: as `check_path`, or it cannot be written.
    """
    check_path(path)
    drawn = io.BytesIO()
    draw(found).savefig(drawn, format=path.suffix[1:], dpi=120)
    try:
        write_bytes(path, drawn.getvalue())
    except OSError as error:
        raise SSLKitError(f"--figure {path} cannot be written: {error.strerror}") from error
    return path


def draw(found: Sequence[Diagnosis]) -> Figure:
    """Return the figure of one run or several, a curve a run; a dotted line is where a failure mode was found.

    Where a run has no prototypes there is no entropy, and the spread of embeddings is drawn for all of them instead.
    """
    shown = DISTRIBUTIONS if all(each.has_prototypes for each in found) else EMBEDDINGS
    figure = Figure(figsize=(11, 4.2 + 0.25 * math.ceil(len(found) / 2)), facecolor="white", layout="constrained")
    # Not pyplot, whose state is global and whose default may need a screen.
    FigureCanvasAgg(figure)
    curves = [_draw(axis, found, *what) for axis, what in zip(figure.subplots(1, 2), shown)]
    if shown is DISTRIBUTIONS:
        _mark_uniform(figure.axes[0], found)
    labels = [f"{each.name}: {each.verdict.name}" for each in found]
    figure.legend(curves[0], labels, loc="outside lower left", ncols=2, frameon=False, fontsize=10)
    return figure


def _draw(axis: Axes, found: Sequence[Diagnosis], name: str, title: str) -> list[Line2D]:
    axis.set_title(title, fontsize=12)
    axis.set_xlabel("epoch")
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(visible=True, alpha=0.25)
    curves: list[Line2D] = []
    for each, color in zip(found, cycle(COLORS)):
        points = [(row["epoch"], row[name]) for row in each.rows if row.get(name) is not None]
        curves += axis.plot(*(zip(*points) if points else ([], [])), color=color, linewidth=1.8)
        if each.verdict.is_failure:
            axis.axvline(each.verdict.step * each.epochs_a_step, color=color, linewidth=1, linestyle=":")
    axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    return curves


def _mark_uniform(axis: Axes, found: Sequence[Diagnosis]) -> None:
    """Draw ln K, a line for each K among the runs."""
    for most in sorted({round(each.most_entropy or 0.0, 2) for each in found}):
        axis.axhline(most, color=GRAY, linewidth=1, linestyle="--")
        axis.annotate(f"ln K = {most:g}: uniform", (0.98, most), xycoords=("axes fraction", "data"), ha="right",
                      va="bottom", color=GRAY, fontsize=9)  # fmt: skip
        axis.set_ylim(top=max(axis.get_ylim()[1], most * 1.1))
