"""Sizes and costs of a recipe, counted by other means."""

import pytest
from rich.text import Text

from sslkit.explain.summary import cost_rows, network_rows, time_rows
from sslkit.recipe import load

SMALL = ["--data.train.num_images", "40", "--data.test.num_images", "8", "--optimization.batch_size", "8"]
SMALL += ["--precision", "fp32", "--runtime.device", "cpu"]


def plain(rows):
    return {name: value.plain if isinstance(value, Text) else value for name, value in rows}


@pytest.fixture
def builder():
    return lambda *words: load("quickstart", [*SMALL, *words]).builder()


def test_dimensions_and_parameters_are_those_of_the_networks(builder):
    built = builder("--method.predictor", "{MLPPredictor: {hidden_dim: 16}}")
    rows = plain(network_rows(built))
    assert rows["Dimensions"] == "image 3 x 32 x 32 -> features 128 -> embedding 64 -> prototypes 256"
    method = built.build("method")
    count = lambda *parts: sum(p.numel() for part in parts for p in part.parameters() if p.requires_grad)  # noqa: E731
    both = count(method.backbone, method.head)
    assert rows["Parameters"] == (
        f"student {both + count(method.predictor):,} trainable (backbone {count(method.backbone):,}), teacher {both:,}"
    )


def test_a_teacher_that_is_the_student_counts_once(builder):
    words = ["--method.teacher", "Copy", "--method.collapse", "SinkhornKnopp"]
    assert plain(network_rows(builder(*words)))["Parameters"].endswith("teacher the student itself")


def test_views_and_their_pairs(builder):
    rows = plain(network_rows(builder("--views", "{MultiCrop: {num_local_views: 3, local_size: 16}}")))
    assert rows["Views"] == ("2 global of 32 px + 3 local of 16 px; student sees 5, teacher 2: 8 pairs an image")


def test_time_is_counted_or_what_is_not_known_is_said(builder):
    built = builder("--runtime.accumulation", "2", "--optimization.epochs", "3")
    assert plain(time_rows(built, 40, "textures", 2)) == {
        "Batch": "8 images a step, 2 processes of 4, each in 2 micro-batches",
        "Time": "15 steps = 3 epochs of 5 steps; 40 images (textures)",
    }
    assert "the number of images is unknown" in plain(time_rows(built, None, "no folder", 1))["Time"]


def test_costs_grow_with_the_images_of_a_process(builder):
    one, two = (plain(cost_rows(builder(), processes)) for processes in (1, 2))
    assert "of tensors at the peak of a step of 8 images in fp32" in one["Memory"]
    assert "of a step of 4 images" in two["Memory"]
    # 3 x 32 x 32 canvases of bytes.
    assert "3.07 kB each from the loader" in one["Data"]
    assert one["Data"] == two["Data"]
