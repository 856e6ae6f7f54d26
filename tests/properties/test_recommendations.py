"""What each component says against itself: fired where the papers say that it fails, silent at their own settings."""

from dataclasses import replace

import pytest

from sslkit import (
    EMA,
    LARC,
    LARS,
    MSE,
    SGD,
    AdamW,
    BatchSoftmax,
    Centering,
    Clock,
    Constant,
    Copy,
    Cosine,
    CrossEntropy,
    DINOHead,
    InfoNCE,
    MLPHead,
    NegativeQueue,
    PreviousEpoch,
    PreviousStep,
    RunContext,
    SinkhornKnopp,
    SwAVHead,
    Warmup,
)
from sslkit.teachers.ema_advice import half_life

IMAGENET = 1_281_167


def run(batch=1024, epochs=300, images=IMAGENET, **more):
    """The setting of a run; without arguments that of DINO's ViT-S/16."""
    steps = images // batch
    clock = Clock(0, max(1, round(epochs * steps)), max(1, steps))
    return RunContext(images, batch, clock, **{"num_prototypes": 65536, "learning_rate": 0.002, **more})


def reasons(part, context):
    return [recommendation.reason for recommendation in part.recommend(context)]


def the_recommendation(part, context):
    [recommendation] = part.recommend(context)
    return recommendation


# The papers' own settings

MOCO = run(256, 200, teacher_views=1, num_prototypes=None, learning_rate=0.03)
SWAV = run(4096, 800, num_prototypes=3000, learning_rate=4.8, shares_weights=True)
SWAV_256 = run(256, 400, num_prototypes=3000, learning_rate=0.6, shares_weights=True)
BYOL = run(4096, 1000, num_prototypes=None, learning_rate=3.2, has_predictor=True, has_operator=False)
CIFAR = run(256, 200, images=50_000, teacher_views=1, num_prototypes=None, learning_rate=0.06)


@pytest.mark.parametrize(
    ("part", "context"),
    [
        (EMA(Cosine(0.996, 1.0)), run()),
        (EMA(Cosine(0.9995, 1.0)), run(256, 100)),
        (EMA(Cosine(0.996, 1.0)), run(128, 100)),  # DINO table 9
        (EMA(0.999), MOCO),
        (EMA(0.99), CIFAR),
        (EMA(Cosine(0.996, 1.0)), BYOL),
        (EMA(Cosine(0.97, 1.0)), run(4096, 40)),
        (PreviousEpoch(), run()),
        (Copy(), SWAV),
        (Centering(8, 0.9, Warmup(0.04, 0.07, "30 epochs")), run()),
        (Centering(8, 0.9, 0.04), run(epochs=100)),
        (Centering(8, 0.9, 0.06), run(epochs=100)),
        (Centering(8, 0.99, 0.02), run(epochs=100)),
        (Centering(8, 0.0, 0), run(epochs=100)),
        (Centering(8, temperature=None), run()),
        (SinkhornKnopp(), run()),  # DINO table 7 row 3
        (SinkhornKnopp(), SWAV),
        (SinkhornKnopp(queue_size=3840, embed_dim=2), SWAV_256),
        (BatchSoftmax(), run()),
        (NegativeQueue(2, 65536), MOCO),
        (NegativeQueue(2, 65536), run(teacher_views=2)),
        (NegativeQueue(2, 4096), CIFAR),
        (DINOHead(4, 64, hidden_dim=4, embed_dim=4), run()),
        (DINOHead(4, 262144, hidden_dim=1, embed_dim=1), run()),
        (DINOHead(4, 64, hidden_dim=4, num_layers=1, l2_bottleneck=False), run()),
        (DINOHead(4, None, hidden_dim=4, num_layers=3, l2_bottleneck=False), run()),
        (SwAVHead(4, 3000, 2, 2), SWAV),
        (MLPHead(4), MOCO),
        (MSE(), BYOL),
        (MSE(), run(has_operator=True)),  # DINO table 14 row 9
        (CrossEntropy(), run()),
        (InfoNCE(negatives="batch"), run(has_operator=False)),
        (AdamW(), run()),
        (AdamW(), run(learning_rate=0.0005 * 8 / 256)),
        (SGD(), MOCO),
        (LARC(), SWAV),
        (LARC(), SWAV_256),
        (LARS(), BYOL),
        (Cosine(0.002, 1e-6, "10 epochs"), run(epochs=100)),
        (Cosine(3.2, 0, "10 epochs"), run(4096, 40)),
        (Warmup(0.04, 0.07, "30 epochs"), run(epochs=100)),
        (Constant(1.0), run(epochs=0.001)),
    ],
)
def test_published_settings_are_free_of_concerns(part, context):
    assert reasons(part, context) == []


# Where the papers say that it fails


@pytest.mark.parametrize(
    ("part", "context", "said", "source"),
    [
        (PreviousStep(), run(), "one step behind did not converge", "DINO figure 6"),
        (Centering(8, 0.9), run(shares_weights=True), "own teacher from collapse", "DINO table 15 row 4"),
        (Centering(8, 0.999), run(), "momentum 0.999 follows too slowly", "DINO appendix D"),
        (Centering(8, 1.0), run(), "momentum 1 follows too slowly", "DINO appendix D"),
        (Centering(8, temperature=0.061), run(), "starts at 0.061 and peaks at 0.061", "DINO appendix D"),
        (Centering(8, temperature=0.08), run(), "0.08 collapsed", "DINO appendix D"),
        (
            Centering(8, temperature=Warmup(0.04, 0.1, "30 epochs")),
            run(),
            "starts at 0.04 and peaks at 0.1",
            "DINO app",
        ),
        (Centering(8, temperature=Warmup(0.04, 0.07, "0 epochs")), run(), "starts at 0.07", "DINO appendix D"),
        (SinkhornKnopp(), SWAV_256, "256 images a view cannot be shared out equally over 3,000", "SwAV §3.1"),
        (BatchSoftmax(), SWAV_256, "256 images a view cannot be shared out equally over 3,000", "SwAV §3.1"),
        (SinkhornKnopp(queue_size=4000, embed_dim=2), SWAV_256, "holds 15 batches of 256", ""),
        (
            SinkhornKnopp(queue_size=400, embed_dim=2),
            run(20, 200, 400, num_prototypes=30),
            "a queue of 400 holds all 400 images, each as it was before",
            "SwAV's holds 3840 of 1.28 M",
        ),
        (
            SinkhornKnopp(queue_size=3840, embed_dim=2),
            replace(SWAV_256, clock=Clock(0, 15 * 5004 + 15, 5004)),
            "never used: it would be full after 75,075 steps, the run has 75,075",
            "SwAV's starts at epoch 15 of 200",
        ),
        (NegativeQueue(2, 65536), run(256, 200, 60_000, teacher_views=1), "hold all 60,000 images", "moco#146"),
        (NegativeQueue(2, 100), run(10, 9, 50, teacher_views=2), "100 negatives hold all 50 images", "moco#146"),
        (DINOHead(4, 65536, 1, 1), run(images=65_535), "1 images each", "DINO appendix C"),
        (SwAVHead(4, 300, 2, 2), run(images=299, batch=64), "300 prototypes for 299 images", "DINO appendix C"),
        (
            DINOHead(4, 8, 4, num_layers=2, l2_bottleneck=False),
            run(),
            "without the l2 bottleneck, 2",
            "DINO appendix C",
        ),
        (MSE(), replace(BYOL, has_predictor=False), "0.1 % linear", "DINO table 14 row 8"),
        (EMA(0.996), run(epochs=0.1), "of the teacher at the end is its first weights", "BYOL takes 0.97"),
        (EMA(1.0), run(), "100% of the teacher", "BYOL takes 0.97"),
        (AdamW(), run(learning_rate=0.0201), "peaks at 0.0201 is unlikely with AdamW: published", "DINO: 0.0005"),
        (AdamW(), run(learning_rate=1.5e-6), "is unlikely", "DINO"),
        (SGD(), run(learning_rate=5.1), "with SGD: published ones peak at 0.03 to 0.5", "MoCo"),
        (LARS(), run(learning_rate=0.002), "is unlikely", "BYOL"),
        (LARC(), run(learning_rate=0.05), "is unlikely", "SwAV"),
        (Cosine(1, 0, "300 epochs"), run(), "warmup lasts as long as the run", "DINO warms up"),
        (Warmup(0, 1, "301 epochs"), run(), "over lasts as long as the run or longer: 376,551 of 375,300", "DINO"),
    ],
)
def test_what_fails_is_warned_of_with_its_source(part, context, said, source):
    recommendation = the_recommendation(part, context)
    assert said in recommendation.reason
    assert recommendation.source.startswith(source)
    assert recommendation.is_warning


# Changes that settle a recommendation


@pytest.mark.parametrize(
    ("momentum", "proposed"),
    [
        (0.999, 0.946),  # 0.5 ** (8 / 100)
        (1.0, 0.946),
        (Cosine(0.999, 1.0), {"Cosine": {"start": 0.946, "end": 1.0}}),
        (Cosine(0.999, 0.9999), {"Cosine": {"start": 0.946, "end": 0.9945}}),
    ],
)
def test_a_teacher_that_cannot_follow_within_the_run_gets_a_half_life_of_an_eighth(momentum, proposed):
    context = run(batch=100, epochs=1, images=10_000)
    assert the_recommendation(EMA(momentum), context).changes == {"momentum": proposed}
    schedule = Cosine(**proposed["Cosine"]) if isinstance(proposed, dict) else proposed
    assert reasons(EMA(schedule), context) == []


def test_a_long_run_gets_the_published_half_life_and_none_shorter_than_byols():
    assert the_recommendation(EMA(1.0), run(1024, 300)).changes == {"momentum": 0.996}
    assert the_recommendation(EMA(1.0), run(256, 200)).changes == {"momentum": 0.999}
    assert the_recommendation(EMA(1.0), run(64, 100, 2_000)).changes == {"momentum": 0.97}


@pytest.mark.parametrize("total", range(1, 30))
def test_what_is_proposed_for_a_short_run_settles_it(total):
    context = RunContext(100, 10, Clock(0, total, 10))
    for start in (0.9999, 0.99, 0.9):
        for recommendation in EMA(Cosine(start, 1.0)).recommend(context):
            assert reasons(EMA(Cosine(**recommendation.changes["momentum"]["Cosine"])), context) == []


def test_a_momentum_keeps_its_half_life_in_epochs():
    written = run(1024, 300)
    recommendation = the_recommendation(EMA(Cosine(0.996, 1.0)), run(256, 300, written_for=written))
    assert not recommendation.is_warning
    assert recommendation.source == "DINO's published code advises 0.9995 for batches of 256"
    start = recommendation.changes["momentum"]["Cosine"]["start"]
    assert recommendation.changes == {"momentum": {"Cosine": {"start": 0.999, "end": 1.0}}}
    assert half_life(start) / 5004 == pytest.approx(half_life(0.996) / 1251, rel=0.01)
    # Both ends in proportion, a constant as well; nothing faster than what has been published.
    other = the_recommendation(EMA(Cosine(0.99, 0.999)), run(1024, 300, written_for=run(512, 300))).changes
    assert other == {"momentum": {"Cosine": {"start": 0.98, "end": 0.998}}}
    assert the_recommendation(EMA(0.999), run(1024, 300, 30_000, written_for=written)).changes == {"momentum": 0.97}


@pytest.mark.parametrize("batch", [1024, 1200, 900])
def test_a_momentum_is_left_alone_in_epochs_of_about_the_same_length(batch):
    assert reasons(EMA(0.996), run(batch, written_for=run(1024))) == []
    assert reasons(EMA(0.96), run(1024, images=20_000, written_for=run(1024))) == []  # already short
    assert reasons(EMA(0.996), run(64)) == []  # not known what it was written for


def test_half_life_by_hand():
    assert half_life(0.5) == pytest.approx(1)
    assert half_life(0.996) == pytest.approx(172.94, abs=0.01)
    assert half_life(1.0) == float("inf")
    assert 0 < half_life(0.0) < 0.01


def test_a_temperature_is_warmed_up_as_published_where_the_run_has_room():
    warm = the_recommendation(Centering(8, temperature=0.08), run()).changes["temperature"]
    assert warm == {"Warmup": {"start": 0.04, "end": 0.07, "over": "30 epochs", "every": "epoch"}}
    assert reasons(Centering(8, temperature=Warmup(**warm["Warmup"])), run()) == []
    short = run(batch=64, epochs=2, images=640)
    steps = the_recommendation(Centering(8, temperature=0.08), short).changes["temperature"]
    assert steps == {"Warmup": {"start": 0.04, "end": 0.07, "over": "2 steps", "every": "step"}}
    assert reasons(Centering(8, temperature=Warmup(**steps["Warmup"])), short) == []
    assert the_recommendation(Centering(8, temperature=0.08), run(64, 1, 64)).changes == {"temperature": 0.04}


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


def test_fewer_prototypes_for_fewer_images():
    rare = the_recommendation(DINOHead(4, 65536, 1, 1), run(images=100_000))
    assert not rare.is_warning
    assert rare.changes == {"num_prototypes": 4096}
    for images in (1_280, 5_000, 65_000, 200_000):
        context = run(images=images, batch=2)
        fewer = the_recommendation(DINOHead(4, 65536, 1, 1), context).changes["num_prototypes"]
        assert 10 < images / fewer <= 40
        assert reasons(DINOHead(4, fewer, 1, 1), context) == []
    assert the_recommendation(DINOHead(4, 65536, 1, 1), run(images=1_000, batch=2)).changes == {"num_prototypes": 64}
    for images in (2, 30, 100, 300):
        assert the_recommendation(DINOHead(4, 65536, 1, 1), run(images=images, batch=2)).changes == {}
    assert the_recommendation(DINOHead(4, 64, 1, 1), run(images=300, batch=2)).changes == {}


@pytest.mark.parametrize("part", [Centering(8, 0.999), DINOHead(4, 8, 4, num_layers=2, l2_bottleneck=False)])
def test_other_changes_settle_too(part):
    changes = the_recommendation(part, run()).changes
    same = Centering(8, **changes) if isinstance(part, Centering) else DINOHead(4, 8, 4, num_layers=2, **changes)
    assert reasons(same, run()) == []


# Facts


@pytest.mark.parametrize(
    ("part", "context", "told"),
    [
        (EMA(Cosine(0.996, 1.0)), run(), {"teacher half-life": "173 steps, 0.14 epochs"}),
        (EMA(1.0), run(), {"teacher half-life": "longer than the run"}),
        (DINOHead(4, 65536, 1, 1), run(), {"images a prototype": "19.5 in the data, 0.0156 in a step"}),
        (SwAVHead(4, 3000, 2, 2), SWAV, {"images a prototype": "427 in the data, 1.37 in a step"}),
        (DINOHead(4, None, 1, 1), run(), {}),
        (BatchSoftmax(), run(), {"balanced together": "1,024 images a view, 0.0156 a prototype"}),
        (
            SinkhornKnopp(queue_size=3900, embed_dim=2),
            SWAV_256,
            {
                "balanced together": "4,096 images a view, 1.37 a prototype",
                "queue": "3,840 images a view; each stays 15 steps, 0.003 epochs",
                "queue in use": "after 75,075 steps, 15 epochs",
            },
        ),
        (
            SinkhornKnopp(queue_size=256, embed_dim=2),
            run(256, 15, num_prototypes=None),
            {"queue": "256 images a view; each stays 1 steps, 0.0002 epochs", "queue in use": "never"},
        ),
        (SinkhornKnopp(), SWAV, {"balanced together": "4,096 images a view, 1.37 a prototype"}),
        (
            NegativeQueue(2, 65536),
            MOCO,
            {"negative queue": "65,536 embeddings, of 5.1% of the images", "negatives stay": "256 steps, 0.051 epochs"},
        ),
        (
            NegativeQueue(2, 65536),
            replace(MOCO, teacher_views=2),
            {"negative queue": "65,536 embeddings, of 2.6% of the images", "negatives stay": "128 steps, 0.026 epochs"},
        ),
        (Copy(), SWAV, {}),
    ],
)
def test_facts(part, context, told):
    assert dict(part.describe(context)) == told


def test_half_life_is_that_of_the_moment():
    half = run().at(375_300 // 2)
    assert dict(EMA(Cosine(0.996, 1.0)).describe(half)) == {"teacher half-life": "346 steps, 0.28 epochs"}
