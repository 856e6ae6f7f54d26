"""Prototypes that fit the number of images."""

from advice import reasons, run, the_recommendation

from sslkit import (
    DINOHead,
)


def test_a_single_prototype_is_told():
    only = the_recommendation(DINOHead(4, 1, 8, 8), run())
    assert only.reason == "a single prototype is the target of every image"
    assert (dict(only.changes), only.leads_to[0]) == ({"num_prototypes": 64}, "one-dimension collapse")
    assert reasons(DINOHead(4, 2, 8, 8), run()) == []


def test_fewer_prototypes_for_fewer_images():
    rare = the_recommendation(DINOHead(4, 65536, 8, 8), run(images=100_000))
    assert not rare.is_warning
    assert rare.changes == {"num_prototypes": 4096}
    for images in (1_280, 5_000, 65_000, 200_000):
        context = run(images=images, batch=2)
        fewer = the_recommendation(DINOHead(4, 65536, 8, 8), context).changes["num_prototypes"]
        assert 10 < images / fewer <= 40
        assert reasons(DINOHead(4, fewer, 8, 8), context) == []
    assert the_recommendation(DINOHead(4, 65536, 8, 8), run(images=1_000, batch=2)).changes == {"num_prototypes": 64}
    for images in (2, 30, 100, 300):
        assert the_recommendation(DINOHead(4, 65536, 8, 8), run(images=images, batch=2)).changes == {}
    assert the_recommendation(DINOHead(4, 64, 8, 8), run(images=300, batch=2)).changes == {}
