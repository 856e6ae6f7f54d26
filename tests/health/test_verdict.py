"""Each ailment by rows that show it and nothing else, and no ailment by rows of healthy runs."""

import math

import pytest

from sslkit.health.symptoms import ln_k
from sslkit.health.verdict import LASTING_ROWS, LASTING_STEPS, causes, judge
from sslkit.recommendation import Recommendation

K = 64
TOTAL = 2000

HEALTHY = {
    "loss": 2.0,
    "loss_below_chance": math.log(K) - 2.0,
    "target_entropy": 1.7,
    "marginal_entropy": 3.5,
    "prototype_use": math.exp(3.5) / K,
    "target_kl": 0.3,
    "image_cosine": 0.6,
    "embedding_directions": 2.5,
}
"""What a row of a healthy run says, about."""

BYOL = {"loss": 0.5, "loss_below_chance": 3.5, "image_cosine": 0.2, "embedding_directions": 3.0}


def rows(until, every=10, start=10, **numbers):
    """Rows of HEALTHY up to a step, but for these numbers."""
    return [{"step": step, "epoch": step / 100, **HEALTHY, **numbers} for step in range(start, until + 1, every)]


def marginal(prototypes):
    return {"marginal_entropy": math.log(prototypes), "prototype_use": prototypes / K}


def knn(network, value, step):
    return {"network": network, "protocol": "knn-v1", "step": step, "metrics": {"knn/top1@20": value, "other": 0.0}}


def test_ln_k_is_read_from_a_row():
    assert ln_k(HEALTHY) == pytest.approx(math.log(K))
    assert ln_k({"marginal_entropy": None, "prototype_use": None}) is None
    assert ln_k(BYOL) is None


@pytest.mark.parametrize(
    ("name", "numbers", "reason"),
    [
        ("one-dimension collapse", marginal(1.9), "name 1.9 prototypes together"),
        (
            "uniform collapse",
            {"target_entropy": 0.99 * math.log(K), "target_kl": 0.01, **marginal(63.9)},
            "99.0% of ln K = 4.16",
        ),
        ("constant embeddings", {"image_cosine": 0.985}, "cosine 0.9850"),
        ("dimensional collapse", {"embedding_directions": 1.1}, "vary along 1.10 directions"),
        (
            "not learning",
            {"target_kl": 2.3},
            "one answer for all images would match the targets better: KL 1.8, not 2.3",
        ),
        ("not learning", {"loss": math.log(K), "loss_below_chance": 0.001}, "the loss is 4.159"),
        ("healthy", {}, ""),
        ("healthy", {"target_entropy": 0.2, **marginal(2.1)}, ""),
        ("healthy", {"target_entropy": 0.97 * math.log(K), "target_kl": 0.01, **marginal(63.9)}, ""),
        ("healthy", {"target_kl": 2.2}, ""),
        ("healthy", {"loss": 4.0, "loss_below_chance": 0.1}, ""),
        ("healthy", {"image_cosine": 0.97, "embedding_directions": 1.3}, ""),
    ],
)
def test_what_lasts_is_told_with_its_numbers(name, numbers, reason):
    verdict = judge(rows(400, **numbers), [], TOTAL)
    assert (verdict.name, verdict.step, verdict.is_failure) == (name, 400, name != "healthy")
    assert reason in verdict.reason
    assert bool(verdict.reason) == verdict.is_failure


def test_losses_without_prototypes_are_judged_by_their_embeddings():
    course = [{"step": step, **BYOL} for step in range(10, 401, 10)]
    assert judge(course, [], TOTAL).name == "healthy"
    assert judge([{**row, "image_cosine": 0.999} for row in course], [], TOTAL).name == "constant embeddings"


@pytest.mark.parametrize(("total", "step", "early"), [(2000, 90, True), (2000, 100, False), (50_000, 990, True)])
def test_a_beginning_is_not_judged(total, step, early):
    """An untrained network may have one answer for all."""
    verdict = judge(rows(step, image_cosine=0.9999), [], total)
    assert verdict.name == ("too early to say" if early else "constant embeddings")
    assert verdict.is_failure is not early


def test_one_odd_batch_is_no_ailment_and_one_good_batch_no_recovery():
    ill, well = {"image_cosine": 1.0}, {"image_cosine": 0.6}
    good = rows(400)
    assert judge([*good[:-1], {**good[-1], **ill}], [], TOTAL).name == "healthy"
    bad = rows(400, image_cosine=0.9999)
    last = {**bad[-1], "image_cosine": 0.95}
    assert judge([*bad[:-1], last], [], TOTAL).name == "constant embeddings"
    assert judge([*bad, *rows(410 + LASTING_STEPS, start=410, **well)], [], TOTAL).name == "healthy"


def test_rows_far_apart_are_averaged_by_number():
    """With a row every 100 steps the last three count, however far back they reach."""
    before = rows(700, every=100, start=100)
    after = [{**row, "image_cosine": 0.999} for row in rows(1000, every=100, start=800)]
    assert len(after) == LASTING_ROWS
    assert judge([*before, *after], [], TOTAL).name == "constant embeddings"
    assert judge([*before, *after[:2]], [], TOTAL).name == "healthy"


def test_numbers_that_are_missing_or_not_finite_say_nothing():
    assert judge(rows(400, image_cosine=None, target_kl=math.nan, effective_rank=None), [], TOTAL).name == "healthy"
    assert judge([{"step": 400, "loss": 1.0}], [], TOTAL).name == "healthy"


@pytest.mark.parametrize(
    ("teacher", "student", "ill"), [(32.8, 30.0, True), (32.8, 33.0, False), (33.0, 25.0, False), (20.0, 21.0, True)]
)
def test_no_gain_over_the_untrained_network_is_not_learning(teacher, student, ill):
    results = [
        knn("untrained", 30.0, 0),
        knn("teacher", 90.0, 100),
        knn("teacher", teacher, 300),
        knn("student", student, 300),
        {"network": "teacher", "protocol": "health-v1", "step": 300, "metrics": {"rank": 1.0}},
    ]
    verdict = judge(rows(400), results, TOTAL)
    assert verdict.name == ("not learning" if ill else "healthy")
    if ill:
        best = max(("teacher", teacher), ("student", student), key=lambda pair: pair[1])
        assert verdict.reason.startswith(
            f"knn/top1@20 of the {best[0]} is {best[1]:.1f}, that of the untrained network 30.0; 2,000 test images"
        )


@pytest.mark.parametrize("results", [[knn("teacher", 1.0, 300)], [knn("untrained", 50.0, 0)], []])
def test_without_both_networks_there_is_nothing_to_compare(results):
    assert judge(rows(400), results, TOTAL).name == "healthy"


def test_learning_takes_time():
    results = [knn("untrained", 30.0, 0), knn("teacher", 10.0, 150)]
    assert judge(rows(190), results, TOTAL).name == "healthy"
    assert judge(rows(400), results, 5000).name == "healthy"
    assert judge(rows(500), results, 5000).name == "not learning"


def test_causes_are_what_leads_to_the_verdict():
    verdict = judge(rows(400, image_cosine=0.99), [], TOTAL)
    guilty = Recommendation("no predictor", leads_to=("dimensional collapse", "constant embeddings"))
    assert causes(
        verdict, [Recommendation("small batch"), guilty, Recommendation("slow", leads_to=("not learning",))]
    ) == [guilty]


@pytest.mark.parametrize(("rest", "name"), [({"teacher": 38.0}, "no gain shown"), ({"teacher": 50.0}, "healthy")])
def test_what_few_test_images_cannot_show_is_no_failure_but_told(rest, name):
    results = [{**knn("untrained", 30.0, 0), "test_images": 120}]
    results += [{**knn(network, value, 300), "test_images": 120} for network, value in rest.items()]
    verdict = judge(rows(400), results, TOTAL)
    assert (verdict.name, verdict.is_failure, verdict.asks_for_causes) == (name, False, name != "healthy")


def test_a_run_that_is_over_early_is_compared_but_has_not_failed():
    results = [knn("untrained", 30.0, 0), knn("teacher", 10.0, 150)]
    assert judge(rows(150), results, 300).name == "healthy"
    assert str(judge(rows(150), results, 150)) == (
        "no gain shown (knn/top1@20 of the teacher is 10.0, that of the untrained network 30.0; "
        "2,000 test images leave a sampling error of 2.4 points)"
    )


def test_no_gain_asks_for_what_leads_to_not_learning():
    verdict = judge(rows(400), [knn("raw-pixels (plain)", 60.0, 0), knn("teacher", 50.0, 300)], TOTAL)
    slow = Recommendation("slow", leads_to=("not learning",))
    assert verdict.name == "no gain shown"
    assert causes(verdict, [slow, Recommendation("small", leads_to=("uniform collapse",))]) == [slow]


@pytest.mark.parametrize(
    ("step", "total", "name"),
    [(50, 2000, "too early to say"), (110, 2000, "not learning"), (30, 30, "not learning")],
)
@pytest.mark.parametrize("numbers", [{"lr": 0.0}, {"lr": 0.1, "teacher_momentum": 1.0}])
def test_a_run_that_stands_still_is_told_once_nothing_can_start_any_more(step, total, name, numbers):
    """Of 100 steps an epoch: a warm-up may leave the whole first one at 0."""
    verdict = judge(rows(step, **numbers), [], total)
    assert verdict.name == name
    if verdict.is_failure:
        assert verdict.reason in ("the learning rate is 0", "the teacher has momentum 1 and keeps its first weights")


def test_a_first_epoch_at_0_is_no_failure_nor_an_end_at_0():
    long_epochs = [{**row, "epoch": row["step"] / 500} for row in rows(400, lr=0.0)]
    assert judge(long_epochs, [], TOTAL).name == "too early to say"
    assert judge([*rows(600, lr=0.1), *rows(900, start=610, lr=0.0)], [], 900).name == "healthy"
    assert (
        judge([*rows(600, teacher_momentum=0.9), *rows(900, start=610, teacher_momentum=1.0)], [], 900).name
        == "healthy"
    )


def test_divergence_is_told_at_any_step_and_before_all_else():
    course = [{"step": 10, "loss": 1.0, "lr": 0.0}, {"step": 20, "loss": None, "lr": 0.0, "nonfinite_tensors": 3}]
    verdict = judge(course, [], TOTAL)
    assert (verdict.name, verdict.step) == ("divergence", 20)
    assert verdict.reason == "3 weights, buffers or moments of the optimizer are not finite"


def test_images_that_cannot_be_learned_from_are_asked_for_once_there_is_a_verdict():
    asked = []

    def of_images():
        asked.append(1)
        return [Recommendation("data.train: all the same")]

    assert judge(rows(50), [], TOTAL, of_images).name == "too early to say"
    assert judge(rows(400, image_cosine=0.99), [], TOTAL, of_images).name == "constant embeddings"
    assert not asked
    verdict = judge(rows(110), [], TOTAL, of_images)
    assert (verdict.name, verdict.reason) == ("not learning", "data.train: all the same")
