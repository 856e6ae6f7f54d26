"""A queue that fits the batch and the run."""

from dataclasses import replace

import pytest
from advice import reasons, run, the_recommendation

from sslkit import (
    Clock,
    SinkhornKnopp,
)

SWAV_256 = run(256, 400, num_prototypes=3000, learning_rate=0.6, shares_weights=True)


def test_a_queue_makes_small_batches_large_enough():
    recommendation = the_recommendation(SinkhornKnopp(), SWAV_256)
    assert recommendation.changes == {"queue_size": 3840, "num_views": 2, "queue_start": "30 epochs"}
    for batch in (1, 3, 64, 100):
        small = replace(run(batch, 400, images=100_000), num_prototypes=3000)
        changes = the_recommendation(SinkhornKnopp(), small).changes
        assert changes["queue_size"] % batch == 0
        assert reasons(SinkhornKnopp(embed_dim=2, **changes), small) == []
    assert the_recommendation(SinkhornKnopp(), replace(run(64, 400, images=900), num_prototypes=3000)).changes == {}
    assert the_recommendation(SinkhornKnopp(), replace(SWAV_256, clock=Clock(0, 15, 5004))).changes == {}
    # A queue that is too short is replaced.
    assert the_recommendation(SinkhornKnopp(queue_size=10, embed_dim=2), replace(run(10), num_prototypes=3000)).changes


@pytest.mark.parametrize(("batch", "images", "size"), [(20, 400, 300), (50, 400, 350), (400, 400, 0)])
def test_a_queue_of_sinkhorn_is_cut_to_fewer_than_the_images(batch, images, size):
    context = run(batch, 200, images, num_prototypes=30)
    recommendation = the_recommendation(SinkhornKnopp(queue_size=1200, embed_dim=2), context)
    assert recommendation.changes == {"queue_size": size}
    assert reasons(SinkhornKnopp(queue_size=size, embed_dim=2), context) == []


def test_a_queue_of_a_whole_number_of_batches_and_early_enough():
    assert the_recommendation(SinkhornKnopp(queue_size=4000, embed_dim=2), SWAV_256).changes == {"queue_size": 3840}
    short = replace(SWAV_256, clock=Clock(0, 50_040, 5004))
    late = the_recommendation(SinkhornKnopp(queue_size=3840, embed_dim=2), short)
    assert late.changes == {"queue_start": "1 epochs"}
    assert reasons(SinkhornKnopp(queue_size=3840, embed_dim=2, queue_start="1 epochs"), short) == []
