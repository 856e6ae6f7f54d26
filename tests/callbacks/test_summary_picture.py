"""The picture shows what the run holds: panels, frames, curves, bars; and survives what a run may lack."""

import math
from types import SimpleNamespace

import matplotlib.image
import pytest
import torch

from sslkit.callbacks.summary_picture import BLUE, GRAY, GREEN, NUM_COLUMNS, NUM_ROWS, ORANGE, RED, SummaryPicture, draw
from sslkit.types import ImageFeatures, ViewGroup, Views

METRIC = "knn/top1@20"


def views(batch, num_globals=2, num_local=0):
    groups = [ViewGroup(torch.rand(num_globals, batch, 3, 8, 8), tuple(range(num_globals)))]
    if num_local:
        ids = tuple(range(num_globals, num_globals + num_local))
        groups.append(ViewGroup(torch.rand(num_local, batch, 3, 4, 4), ids))
    return Views(tuple(groups), num_globals)


def image_features(count, num_classes=None):
    """Return images whose features are one direction a class."""
    classes = torch.arange(count) % (num_classes or 3)
    labels = classes if num_classes else None
    return ImageFeatures(torch.rand(count, 3, 8, 8), torch.eye(num_classes or 3)[classes], labels)


def row(step, **more):
    return {"step": step, "epoch": step / 4, "loss": 5.0 - step, "target_entropy": 3.0 + step / 10, **more}


@pytest.fixture
def run(tmp_path):
    """Return what the picture asks of a run."""
    bank, queries = image_features(30, 4), image_features(12, 4)
    return SimpleNamespace(
        is_main=True,
        run_dir=tmp_path,
        name="some-recipe",
        clock=SimpleNamespace(step=8, total_steps=16),
        student=SimpleNamespace(head=SimpleNamespace(num_prototypes=32)),
        metrics=[row(1), row(4), row(8)],
        results=[
            {"step": 0, "network": "untrained", "metrics": {METRIC: 20.0}},
            {"step": 4, "network": "teacher", "metrics": {METRIC: 40.0}},
            {"step": 8, "network": "teacher", "metrics": {METRIC: 60.0}},
            {"step": 8, "network": "teacher", "metrics": {"other/metric": 1.0}},
        ],
        visualization=SimpleNamespace(
            sample_views=lambda count: views(16).narrow(0, count),
            image_features=lambda part, limit: bank if part == "train" else queries,
            as_picture=lambda image: image.permute(1, 2, 0),
        ),
    )


def panels(figure):
    """Return axes of the views, of the neighbours, and of the three charts."""
    top, bottom = figure.subfigs
    return top.subfigs[0].axes, top.subfigs[1].axes, bottom.axes


def test_the_picture_is_written_by_the_main_process_alone(run):
    run.is_main = False
    SummaryPicture().on_run_end(run)
    assert not (run.run_dir / "summary.png").exists()
    run.is_main = True
    SummaryPicture().on_run_end(run)
    height, width, _ = matplotlib.image.imread(run.run_dir / "summary.png").shape
    assert width > height > 800


def test_it_says_which_run(run):
    assert draw(run, METRIC).get_suptitle() == "some-recipe · step 8 of 16"


@pytest.mark.parametrize(
    ("made", "num_rows", "num_columns"),
    [
        (views(16), 2, NUM_COLUMNS),
        (views(64), NUM_ROWS, NUM_COLUMNS),
        (views(4), 2, 4),
        (views(1), 2, 1),
        (views(16, num_local=1), 3, NUM_COLUMNS),
        (views(16, num_local=10), NUM_ROWS, NUM_COLUMNS),
        (views(16, num_globals=1, num_local=1), 2, NUM_COLUMNS),
    ],
)
def test_views_fill_a_grid_a_column_an_image(run, made, num_rows, num_columns):
    run.visualization.sample_views = lambda count: made.narrow(0, count)
    axes, _, _ = panels(draw(run, METRIC))
    assert len(axes) == num_rows * num_columns
    assert all(axis.images for axis in axes)
    for view, images in enumerate(image for group in made.groups for image in group.images):
        if view < num_rows:
            shown = torch.tensor(axes[view * num_columns].images[0].get_array())
            torch.testing.assert_close(shown, images[0].permute(1, 2, 0))
    assert axes[0].get_ylabel() == "view 0"


def rows_of(axes, columns=NUM_COLUMNS):
    return [axes[i : i + columns] for i in range(0, len(axes), columns)]


def colors_of(line):
    return [matplotlib.colors.to_hex(axis.spines["left"].get_edgecolor()) for axis in line[1:]]


def test_neighbours_are_the_nearest_and_framed_by_their_class(run):
    run.visualization.image_features = lambda part, limit: (
        image_features(8, 4) if part == "train" else image_features(4, 4)
    )
    _, axes, _ = panels(draw(run, METRIC))
    lines = rows_of(axes)
    assert len(lines) == 4
    # Two of the eight training images are of the query's class, and nearest.
    assert all(colors_of(line) == [GREEN] * 2 + [RED] * 6 for line in lines)


def test_rows_are_drawn_evenly_from_best_to_worst(run):
    """Of 60 test images 40 have right neighbours alone, 10 half of them, 10 none: so have the rows."""
    bank = ImageFeatures(torch.rand(48, 3, 8, 8), torch.eye(3).repeat_interleave(16, 0), torch.zeros(48).long())
    bank.labels[20:32], bank.labels[32:] = 1, 1  # 4 of the 16 images of the second direction are of class 0
    bank.labels[16:20] = 0
    directions = torch.tensor([2] * 10 + [0] * 40 + [1] * 10)
    queries = ImageFeatures(torch.rand(60, 3, 8, 8), torch.eye(3)[directions], torch.zeros(60).long())
    run.visualization.image_features = lambda part, limit: bank if part == "train" else queries
    lines = rows_of(panels(draw(run, METRIC))[1])
    greens = [colors_of(line).count(GREEN) for line in lines]
    assert len(greens) == NUM_ROWS
    assert greens == sorted(greens, reverse=True)
    assert greens[:4] == [8] * 4
    assert greens[5] == 0


def test_rows_of_unlabelled_images_are_spread_over_their_order(run):
    queries, bank = image_features(60), image_features(20)
    run.visualization.image_features = lambda part, limit: bank if part == "train" else queries
    lines = rows_of(panels(draw(run, METRIC))[1])
    for line, index in zip(lines, (5, 15, 25, 35, 45, 55), strict=True):
        torch.testing.assert_close(torch.tensor(line[0].images[0].get_array()), queries.images[index].permute(1, 2, 0))


def test_few_training_images_make_a_narrow_grid(run):
    run.visualization.image_features = lambda part, limit: image_features(3, 3)
    assert len(panels(draw(run, METRIC))[1]) == 3 * 4


def test_unlabelled_neighbours_have_no_frame(run):
    run.visualization.image_features = lambda part, limit: image_features(20 if part == "train" else 4)
    _, axes, _ = panels(draw(run, METRIC))
    assert len(axes) == 4 * NUM_COLUMNS
    assert not any(axis.spines["left"].get_visible() for axis in axes)


def test_without_test_images_training_images_are_shown_with_their_neighbours(run):
    bank = image_features(12, 3)
    run.visualization.image_features = lambda part, limit: bank if part == "train" else None
    figure = draw(run, METRIC)
    assert figure.subfigs[0].subfigs[1].get_suptitle().startswith("Training images")
    for line in rows_of(panels(figure)[1]):
        query, *found = [torch.tensor(axis.images[0].get_array()) for axis in line]
        assert not any(torch.equal(image, query) for image in found)
        assert colors_of(line) == [GREEN] * 3 + [RED] * 5


def test_curves_are_the_rows(run):
    loss, entropy, _ = panels(draw(run, METRIC))[2]
    assert loss.lines[0].get_xydata().tolist() == [[0.25, 4.0], [1.0, 1.0], [2.0, -3.0]]
    assert loss.lines[0].get_color() == BLUE
    assert loss.get_ylim()[0] <= -3
    curve, ceiling = entropy.lines
    assert curve.get_color() == ORANGE
    assert ceiling.get_ydata()[0] == pytest.approx(math.log(32))
    assert entropy.get_ylim()[1] > math.log(32)


def test_a_method_without_prototypes_has_no_entropy(run):
    run.metrics = [{"step": 1, "epoch": 0.25, "loss": 1.0}]
    run.student.head.num_prototypes = None
    _, entropy, _ = panels(draw(run, METRIC))[2]
    assert [text.get_text() for text in entropy.texts] == ["not defined for this method"]


def test_the_last_figure_of_each_network_is_a_bar(run):
    bars = panels(draw(run, METRIC))[2][2]
    assert [label.get_text() for label in bars.get_yticklabels()] == ["teacher", "untrained"]
    assert [patch.get_width() for patch in bars.patches] == [60.0, 20.0]
    colors = [matplotlib.colors.to_hex(patch.get_facecolor()) for patch in bars.patches]
    assert colors == [GREEN, GRAY]


def test_a_run_without_rows_and_figures_has_a_picture_too(run):
    run.metrics, run.results = [], []
    charts = panels(draw(run, METRIC))[2]
    assert [text.get_text() for text in charts[2].texts] == ["not evaluated: labelled test images are needed"]
    SummaryPicture().on_run_end(run)
