"""Accuracies compared with those of baselines, by the error that the number of test images leaves."""

import math

import pytest
import torch

from sslkit.health.evaluations import failed, sampling_error, without_gain


def row(network, value, step=300, images=2000, protocol="knn-v1", **metrics):
    named = {"knn/top1@20": value, **metrics}
    return {"network": network, "protocol": protocol, "step": step, "test_images": images, "metrics": named}


def results(score, untrained=30.0, images=2000, pixels=()):
    baselines = [row(f"raw-pixels ({i})", value, 0, images) for i, value in enumerate(pixels)]
    return [row("untrained", untrained, 0, images), *baselines, row("teacher", score, images=images)]


@pytest.mark.parametrize(("share", "images"), [(0.3, 120), (0.3, 10_000), (0.02, 500)])
def test_the_sampling_error_is_that_of_drawn_images(share, images):
    """Differences of two accuracies of the same quality: two standard deviations of 4000 draws."""
    hits = torch.distributions.Binomial(images, torch.tensor(share)).sample((4000, 2))
    drawn = 2 * (hits[:, 0] - hits[:, 1]).div(images).mul(100).std().item()
    assert sampling_error(100 * share, 100 * share, images) == pytest.approx(drawn, rel=0.12)


def test_an_accuracy_of_0_or_100_has_an_error_too():
    assert sampling_error(0, 0, 100) == pytest.approx(sampling_error(100, 100, 100))
    assert sampling_error(0, 0, 100) > 1


@pytest.mark.parametrize(
    ("images", "score", "says"),
    [
        (10_000, 31.2, "failed"),  # an error of 1.3 points: no gain
        (10_000, 31.5, ""),
        (2000, 32.5, "failed"),  # 2.9 points
        (2000, 33.5, ""),
        (120, 38.0, "without gain"),  # 12 points: neither a gain nor a failure is shown
        (120, 25.0, "without gain"),
        (120, 45.0, ""),
        (120, 15.0, "failed"),
    ],
)
def test_how_much_is_a_gain_depends_on_the_number_of_test_images(images, score, says):
    rows = results(score, images=images)
    assert bool(failed(rows)) == (says == "failed")
    assert bool(without_gain(rows)) == (says != "")


def test_what_is_said_names_the_numbers():
    assert failed(results(31.0)) == (
        "knn/top1@20 of the teacher is 31.0, that of the untrained network 30.0; "
        "2,000 test images leave a sampling error of 2.9 points"
    )
    assert without_gain(results(38.0, images=120)) == (
        "knn/top1@20 of the teacher is 38.0, that of the untrained network 30.0; "
        "120 test images leave a sampling error of 12.1 points, and more of them would tell"
    )
    assert without_gain(results(31.0, 20.0, pixels=(28.0, 32.6, 30.0))) == (
        "knn/top1@20 of the teacher is 31.0, that of raw-pixels (1) 32.6"
    )


def test_raw_pixels_alone_are_compared_too_and_never_a_failure():
    rows = [row("raw-pixels (plain)", 32.6, 0), row("teacher", 31.0)]
    assert failed(rows) == ""
    assert "raw-pixels (plain) 32.6" in without_gain(rows)
    assert without_gain([rows[0], row("teacher", 32.7)]) == ""


def test_the_better_network_of_the_last_evaluation_counts():
    rows = [row("untrained", 30.0, 0), row("teacher", 90.0, 100), row("teacher", 20.0), row("student", 34.0)]
    assert failed(rows) == without_gain(rows) == ""
    assert failed([*rows, row("teacher", 20.0, 400), row("student", 21.0, 400)]).startswith(
        "knn/top1@20 of the student"
    )


@pytest.mark.parametrize(
    "rows",
    [
        [],
        [row("teacher", 1.0)],
        [row("untrained", 30.0, 0)],
        [row("untrained", 30.0, 0), row("teacher", 1.0, None)],  # added by `sslkit evaluate`
        [row("untrained", 30.0, 0), row("teacher", 1.0, protocol="knn-v2")],
        [row("untrained", 30.0, 0), {**row("teacher", 1.0), "dataset": "other images"}],
        [row("untrained", 130.0, 0), row("teacher", 1.0)],  # no percentage
        [row("untrained", -3.0, 0), row("teacher", -4.0)],
        [row("untrained", 30.0, 0), {"step": 300, "network": "teacher", "protocol": "knn-v1", "metrics": {}}],
        [{"step": 3}, {"step": 3, "metrics": {"a": 1.0}}, {"step": None, "network": "teacher"}],
        [row("untrained", 30.0, 0), row("teacher", math.nan)],
    ],
)
def test_what_cannot_be_compared_says_nothing(rows):
    assert failed(rows) == without_gain(rows) == ""


def test_a_row_without_a_number_of_images_counts_as_2000():
    rows = [{name: value for name, value in each.items() if name != "test_images"} for each in results(31.0)]
    assert "2,000 test images" in failed(rows)


def test_every_protocol_is_compared():
    second = [row("untrained", 50.0, 0, protocol="linear"), row("teacher", 50.0, protocol="linear")]
    assert failed([*results(90.0), *second]).startswith("knn/top1@20 of the teacher is 50.0")
