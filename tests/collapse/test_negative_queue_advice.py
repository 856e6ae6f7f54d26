"""A queue of negatives is a small share of the images."""

import pytest
from advice import reasons, run, the_recommendation

from sslkit import (
    NegativeQueue,
)


@pytest.mark.parametrize("teacher_views", [1, 2])
@pytest.mark.parametrize("images", [300, 5_000, 50_000])
def test_a_negative_queue_is_cut_to_the_published_share_in_whole_batches(teacher_views, images):
    context = run(64, 200, images, teacher_views=teacher_views)
    recommendation = the_recommendation(NegativeQueue(2, 65536), context)
    size = recommendation.changes["size"]
    assert size % (64 * teacher_views) == 0
    assert size <= max(64 * teacher_views, 0.05 * images * teacher_views)
    assert reasons(NegativeQueue(2, size), context) == []


def test_a_large_share_of_negatives_is_no_failure():
    recommendation = the_recommendation(NegativeQueue(2, 65536), run(256, 200, 400_000, teacher_views=1))
    assert not recommendation.is_warning
    assert recommendation.changes == {"size": 19968}
