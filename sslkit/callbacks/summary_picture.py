"""Draw one picture of a run: views, nearest neighbours, curves and results."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure, SubFigure
from matplotlib.ticker import MaxNLocator
from torch import Tensor
from torch.nn import functional as F

from sslkit.contracts import Callback, TrainingRun
from sslkit.types import ImageFeatures

NUM_ROWS, NUM_COLUMNS = 6, 9
"""Rows and columns of each grid of images; the first column of the neighbours holds the queries."""
BLUE, ORANGE, GREEN, RED, GRAY = "#2f6db5", "#d9822b", "#2e8b57", "#c0392b", "#8a8f98"


class SummaryPicture(Callback):
    """Draws ``summary.png`` into the run folder at the end.

    Sample images and their views; test images with their nearest training images by the teacher's features; loss and
    target entropy over time; the evaluations side by side.

    The test images that are shown stand for all: sorted by how many of their neighbours are of their class, most
    first, they are divided into as many equal parts as there are rows, and the middle one of each part is shown.
    Without labels their own order is divided. Without test images they are training images.

    Args:
        metric: the metric of results.json to compare networks by.
    """

    def __init__(self, metric: str = "knn/top1@20") -> None:
        self.metric = metric

    def on_run_end(self, run: TrainingRun) -> None:
        if run.is_main:
            draw(run, self.metric).savefig(run.run_dir / "summary.png", dpi=110)


def draw(run: TrainingRun, metric: str) -> Figure:
    """Return the picture of a run."""
    figure = Figure(figsize=(15, 9.5), facecolor="white", layout="constrained")
    # Not pyplot, whose state is global and whose default may need a screen.
    FigureCanvasAgg(figure)
    figure.suptitle(f"{run.name} · step {run.clock.step} of {run.clock.total_steps}", fontsize=15, x=0.02, ha="left")
    halves: Any = figure.subfigures(2, 1, height_ratios=[1.55, 1], hspace=0.04)
    top, bottom = halves
    left, right = top.subfigures(1, 2, wspace=0.04)
    _draw_views(left, run)
    _draw_neighbours(right, run)
    loss, entropy, results = bottom.subplots(1, 3, width_ratios=[1, 1, 1.15])
    rows = run.metrics
    _draw_curve(loss, rows, "loss", BLUE)
    _draw_curve(entropy, rows, "target_entropy", ORANGE)
    _draw_ceiling(entropy, run.student.head.num_prototypes)
    _draw_results(results, run.results, metric)
    return figure


def _draw_views(figure: SubFigure, run: TrainingRun) -> None:
    figure.suptitle("Views that student and teacher compare, a column an image", fontsize=12)
    views = run.visualization.sample_views(NUM_ROWS * NUM_COLUMNS)
    by_view = [images for group in views.groups for images in group.images][:NUM_ROWS]
    columns = min(NUM_COLUMNS, views.batch_size)
    # With few views a grid has room for several blocks of images.
    blocks = min(NUM_ROWS // len(by_view), views.batch_size // columns)
    axes = figure.subplots(blocks * len(by_view), columns, squeeze=False)
    for row, line in enumerate(axes):
        block, view = divmod(row, len(by_view))
        line[0].set_ylabel(f"view {views.view_ids[view]}", rotation=0, ha="right", va="center", fontsize=10)
        for axis, image in zip(line, by_view[view][block * columns :]):
            _show(axis, run.visualization.as_picture(image))


def _draw_neighbours(figure: SubFigure, run: TrainingRun) -> None:
    bank, queries = run.visualization.image_features("train", 5000), run.visualization.image_features("test", 5000)
    if bank is None:
        return
    nearest = _nearest(bank, queries)
    kind, queries = ("Test", queries) if queries is not None else ("Training", bank)
    right = _right(bank, queries, nearest)
    order = ", from best to worst," if right is not None else ""
    figure.suptitle(f"{kind} images{order} and the training images nearest to them", fontsize=12)
    chosen = _middle_of_parts(right, len(queries.images))
    axes = figure.subplots(len(chosen), nearest.shape[1] + 1, squeeze=False)
    for query, line in zip(chosen, axes):
        _show(line[0], run.visualization.as_picture(queries.images[query]))
        for position, (index, axis) in enumerate(zip(nearest[query].tolist(), line[1:])):
            _show(axis, run.visualization.as_picture(bank.images[index]))
            if right is not None:
                _frame(axis, GREEN if right[query, position] else RED)
    axes[0][0].set_title("query", fontsize=10)


def _nearest(bank: ImageFeatures, queries: ImageFeatures | None) -> Tensor:
    """Return the bank's nearest images to each query, (N, k) by index; without queries those of the bank itself."""
    # Cosine, as k-NN measures it.
    known = F.normalize(bank.features, dim=-1)
    asked = known if queries is None else F.normalize(queries.features, dim=-1)
    found = []
    for rows in torch.arange(len(asked)).split(1024):
        similarity = asked[rows] @ known.T
        if queries is None:
            # Each training image is nearest to itself, which shows nothing.
            similarity[torch.arange(len(rows)), rows] = -math.inf
        found.append(similarity.topk(min(NUM_COLUMNS - 1, len(known) - (queries is None))).indices)
    return torch.cat(found)


def _right(bank: ImageFeatures, queries: ImageFeatures, nearest: Tensor) -> Tensor | None:
    """Return which neighbours (N, k) are of their query's class; None without labels."""
    if bank.labels is None or queries.labels is None:
        return None
    return bank.labels[nearest] == queries.labels[:, None]


def _middle_of_parts(right: Tensor | None, num_images: int) -> list[int]:
    """Return the middle image of each of `NUM_ROWS` equal parts of the images, sorted by right neighbours if known."""
    order = torch.arange(num_images) if right is None else right.sum(1).argsort(descending=True, stable=True)
    rows = min(NUM_ROWS, num_images)
    return [int(order[(2 * row + 1) * num_images // (2 * rows)]) for row in range(rows)]


def _draw_curve(axis: Axes, rows: Sequence[Mapping[str, float]], name: str, color: str) -> None:
    _style(axis, name.replace("_", " "))
    axis.set_xlabel("epoch")
    points = [(row["epoch"], row[name]) for row in rows if row.get(name) is not None]
    if points:
        epochs, values = np.array(points).T
        axis.plot(epochs, values, color=color, linewidth=1.6)
        axis.set_ylim(bottom=min(0.0, float(values.min())))
    else:
        axis.text(0.5, 0.5, "not defined for this method", ha="center", color=GRAY, transform=axis.transAxes)


def _draw_ceiling(axis: Axes, num_prototypes: int | None) -> None:
    if num_prototypes and axis.lines:
        ceiling = math.log(num_prototypes)
        axis.axhline(ceiling, color=GRAY, linewidth=1, linestyle="--")
        axis.annotate("ln K: uniform", (0.98, ceiling), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                      color=GRAY, fontsize=9)  # fmt: skip
        axis.set_ylim(0, ceiling * 1.12)


def _draw_results(axis: Axes, results: Sequence[Mapping[str, Any]], metric: str) -> None:
    _style(axis, f"{metric}, last step")
    named = [name for row in results for name in row["metrics"]]
    metric = metric if metric in named or not named else named[0]
    axis.set_title(f"{metric}, last step")
    last = {row["network"]: row["metrics"][metric] for row in results if metric in row["metrics"]}
    if not last:
        axis.set_axis_off()
        axis.text(0.5, 0.5, "not evaluated: labelled test images are needed", ha="center", color=GRAY,
                  transform=axis.transAxes)  # fmt: skip
        return
    names = list(last)[::-1]
    colors = [GREEN if name in ("teacher", "student") else GRAY for name in names]
    bars = axis.barh(names, [last[name] for name in names], color=colors, height=0.62)
    axis.bar_label(bars, fmt="%.1f", padding=4, fontsize=10)
    axis.set_xlim(0, 108)
    axis.grid(visible=False)
    axis.tick_params(axis="y", length=0)


def _style(axis: Axes, title: str) -> None:
    axis.set_title(title, fontsize=12)
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(visible=True, alpha=0.25)
    axis.xaxis.set_major_locator(MaxNLocator(6))


def _show(axis: Axes, image: Tensor) -> None:
    """Draw (H, W, 3) in 0..1 without ticks."""
    axis.imshow(image.numpy(), interpolation="nearest")
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


def _frame(axis: Axes, color: str) -> None:
    axis.spines[:].set(visible=True, color=color, linewidth=2.5)
