"""How many images it takes to share them out over prototypes."""

import pytest
from advice import run

from sslkit.collapse.partition_advice import balanced_together, enough, is_too_few, too_few, too_flat


@pytest.mark.parametrize(("num_prototypes", "images"), [(3000, 300), (65536, 1024), (10, 1), (None, 0)])
def test_a_tenth_of_the_prototypes_is_enough_and_so_are_1024(num_prototypes, images):
    context = run(num_prototypes=num_prototypes)
    assert enough(context) == images
    assert not is_too_few(images, context)
    assert is_too_few(images - 1, context)


def test_what_is_said_of_it():
    context = run(num_prototypes=3000)
    assert [*balanced_together(256, context)] == [("balanced together", "256 images a view, 0.0853 a prototype")]
    assert [*balanced_together(256, run(num_prototypes=None))] == []
    recommendation = too_few(256, context, {"queue_size": 3840})
    assert "256 images a view cannot be shared out equally over 3,000 prototypes" in recommendation.reason
    assert recommendation.changes == {"queue_size": 3840}
    assert recommendation.leads_to == ("uniform collapse",)


def test_assignments_that_are_nearly_uniform_are_told_with_the_published_value():
    (only,) = too_flat("epsilon", 0.5)
    assert only.reason.startswith("epsilon 0.5 makes nearly uniform assignments")
    assert (dict(only.changes), only.leads_to[0]) == ({"epsilon": 0.05}, "uniform collapse")
    assert list(too_flat("epsilon", 0.4)) == []
