"""What each component says against itself: fired where the papers say that it fails, silent at their own settings."""

from dataclasses import replace

import pytest
from advice import reasons, run, the_recommendation

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
    SinkhornKnopp,
    SwAVHead,
    Warmup,
)
from sslkit.recommendation import ANY_FAILURE

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
        (DINOHead(4, 262144, hidden_dim=4, embed_dim=4), run()),
        (DINOHead(4, 64, hidden_dim=4, num_layers=1, l2_bottleneck=False), run()),
        (DINOHead(4, None, hidden_dim=4, num_layers=3, l2_bottleneck=False), run()),
        (SwAVHead(4, 3000, 8, 8), SWAV),
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
        (DINOHead(4, 65536, 8, 8), run(images=65_535), "1 images each", "DINO appendix C"),
        (SwAVHead(4, 300, 8, 8), run(images=299, batch=64), "300 prototypes for 299 images", "DINO appendix C"),
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


@pytest.mark.parametrize("part", [Centering(8, 0.999), DINOHead(4, 8, 4, num_layers=2, l2_bottleneck=False)])
def test_other_changes_settle_too(part):
    changes = the_recommendation(part, run()).changes
    same = Centering(8, **changes) if isinstance(part, Centering) else DINOHead(4, 8, 4, num_layers=2, **changes)
    assert reasons(same, run()) == []


@pytest.mark.parametrize(
    ("part", "context", "told"),
    [
        (EMA(Cosine(0.996, 1.0)), run(), {"teacher half-life": "173 steps, 0.14 epochs"}),
        (EMA(1.0), run(), {"teacher half-life": "longer than the run"}),
        (DINOHead(4, 65536, 8, 8), run(), {"images a prototype": "19.5 in the data, 0.0156 in a step"}),
        (SwAVHead(4, 3000, 8, 8), SWAV, {"images a prototype": "427 in the data, 1.37 in a step"}),
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


@pytest.mark.parametrize(
    ("part", "context", "leads_to", "remedy"),
    [
        (AdamW(), run(learning_rate=1e-9), ("not learning",), {"optimization.lr": 0.0002}),
        (AdamW(), run(learning_rate=10.0), ANY_FAILURE, {"optimization.lr": 0.0002}),
        (SGD(), run(learning_rate=1e10), ANY_FAILURE, {"optimization.lr": 0.1}),
        (EMA(1.0), run(), ANY_FAILURE, {}),
        (EMA(0.996), run(epochs=0.1), ("not learning",), {}),
    ],
)
def test_what_it_leads_to_is_said_with_a_way_out(part, context, leads_to, remedy):
    recommendation = the_recommendation(part, context)
    assert (recommendation.leads_to, dict(recommendation.remedy)) == (leads_to, remedy)


def test_a_learning_rate_of_0_is_told_whatever_the_optimizer():
    """By `sslkit.explain.rates`, so that it is told once."""
    assert reasons(AdamW(), run(learning_rate=0.0)) == []
