"""Each number for the log against a value that is known without computing it, or another library's."""

import math

import pytest
import torch
from torch.nn import functional as F

from sslkit.health.diagnostics import (
    diagnose,
    effective_rank,
    embedding_directions,
    embedding_std,
    entropy,
    image_cosine,
)
from sslkit.losses import MSE, CrossEntropy
from sslkit.method.step import StepOutput
from sslkit.types import Projection, Targets

K, B, D = 7, 5, 6
NEVER_UNDEFINED = {
    "embedding_std",
    "effective_rank",
    "teacher_student_cosine",
    "image_cosine",
    "embedding_directions",
    "loss_below_chance",
}


def projection(num_views, logits=None, features=None):
    shape = (num_views, B, D)
    projected = torch.randn(shape, dtype=torch.float64)
    return Projection(
        torch.randn(shape, dtype=torch.float64) if features is None else features,
        projected,
        F.normalize(projected, dim=-1),
        torch.randn(num_views, B, K, dtype=torch.float64) if logits is None else logits,
        tuple(range(num_views)),
    )


def output(values=None, student_logits=None, kind="probabilities"):
    teacher = projection(2)
    values = teacher.logits.softmax(-1) if values is None else values
    return StepOutput(
        torch.zeros(()), projection(3, student_logits), teacher, Targets(values, kind, (0, 1), negatives=None)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_uniform_targets_have_the_entropy_ln_k(dtype):
    numbers = diagnose(output(torch.full((2, B, K), 1 / K, dtype=dtype)), CrossEntropy())
    for name in ("target_entropy", "marginal_entropy"):
        assert numbers[name].item() == pytest.approx(math.log(K))
    assert numbers["prototype_use"].item() == pytest.approx(1)


def test_one_hot_targets_have_no_entropy():
    same = F.one_hot(torch.full((2, B), 3), K).double()
    numbers = diagnose(output(same), CrossEntropy())
    assert numbers["target_entropy"] == numbers["marginal_entropy"] == 0
    assert numbers["prototype_use"].item() == pytest.approx(1 / K)


def test_one_hot_targets_that_differ_use_as_many_prototypes():
    """Ten answers, each of prototypes 0 .. 4 twice."""
    targets = F.one_hot(torch.arange(B).expand(2, B), K).double()
    numbers = diagnose(output(targets), CrossEntropy())
    assert numbers["target_entropy"] == 0
    assert numbers["marginal_entropy"].item() == pytest.approx(math.log(5))
    assert numbers["prototype_use"].item() == pytest.approx(5 / K)


def test_student_entropy_is_that_of_its_sharpened_answer():
    uniform = diagnose(output(student_logits=torch.zeros(3, B, K, dtype=torch.float64)), CrossEntropy())
    assert uniform["student_entropy"].item() == pytest.approx(math.log(K))
    # Logits ln 1, ln 2, ln 4 at temperature 1/2 are odds of 1, 4, 16 to nothing.
    logits = torch.tensor([0, math.log(2), math.log(4)], dtype=torch.float64).expand(3, B, 3)
    targets = torch.full((2, B, 3), 1 / 3, dtype=torch.float64)
    sharpened = diagnose(output(targets, logits), CrossEntropy(temperature=0.5))
    expected = -sum(p / 21 * math.log(p / 21) for p in (1, 4, 16))
    assert sharpened["student_entropy"].item() == pytest.approx(expected)


def test_target_kl_is_torchs_over_pairs_of_different_views():
    seen = output()
    log_student = (seen.student.logits / 0.1).log_softmax(-1)
    pairs = [(t, s) for t in range(2) for s in range(3) if s != t]
    kl = [F.kl_div(log_student[s], seen.targets.values[t], reduction="batchmean") for t, s in pairs]
    torch.testing.assert_close(diagnose(seen, CrossEntropy())["target_kl"], sum(kl) / len(pairs))


def test_a_student_that_answers_the_targets_has_no_kl():
    logits = torch.randn(1, B, K, dtype=torch.float64).expand(3, B, K)
    seen = output((logits[:2] / 0.1).softmax(-1), logits)
    assert diagnose(seen, CrossEntropy())["target_kl"].item() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", ["embedding", "logits"])
def test_what_needs_probabilities_is_left_out_without_them(kind):
    assert set(diagnose(output(kind=kind), CrossEntropy())) == NEVER_UNDEFINED


def test_identical_embeddings_do_not_vary():
    row = F.normalize(torch.randn(2, 1, D), dim=-1)
    assert embedding_std(row.expand(2, B, D)).item() == pytest.approx(0, abs=1e-6)


def test_embeddings_around_the_whole_sphere_vary_most():
    axes = torch.cat([torch.eye(D), -torch.eye(D)])[None]
    assert embedding_std(axes).item() == pytest.approx(1)
    assert embedding_std(3 * axes).item() == pytest.approx(1)
    assert embedding_std(torch.eye(2)[None]).item() == pytest.approx(math.sqrt(1 / 2))


def test_effective_rank_counts_directions():
    assert effective_rank(torch.randn(D).expand(2, B, D)).item() == pytest.approx(1, abs=1e-4)
    for n in (2, 4, 6):
        assert effective_rank(torch.eye(D)[:n][None]).item() == pytest.approx(n, rel=1e-5)
    # Singular values 3 and 1: exp(H(3/4, 1/4)).
    two = torch.diag(torch.tensor([3.0, 1.0], dtype=torch.float64))[None]
    assert effective_rank(two).item() == pytest.approx(math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4)))


def test_effective_rank_of_nothing_and_of_what_is_not_finite():
    assert effective_rank(torch.zeros(1, B, D)).item() == 1
    assert effective_rank(torch.full((1, B, D), torch.nan)).isnan()
    assert effective_rank(torch.full((1, B, D), torch.inf)).isnan()


def test_effective_rank_looks_at_512_rows_at_most():
    features = torch.cat([torch.eye(D)[:1].expand(512, D), torch.eye(D)])[None]
    assert effective_rank(features).item() == pytest.approx(1)


def test_cosine_of_equal_and_opposite_networks():
    seen = output()
    same = seen.teacher.projection[:1].expand(3, B, D)
    both = Projection(same, same, same, None, (0, 1, 2))
    teacher = Projection(same[:2], same[:2], same[:2], None, (0, 1))
    for symptom in (1, -1):
        opposite = Projection(same, symptom * same, same, None, (0, 1, 2))
        numbers = diagnose(StepOutput(seen.loss, opposite, teacher, Targets(same[:2], "embedding", (0, 1))), MSE())
        assert numbers["teacher_student_cosine"].item() == pytest.approx(symptom)
    assert diagnose(StepOutput(seen.loss, both, teacher, Targets(same[:2], "embedding", (0, 1))), MSE())


def test_half_precision_is_read_in_float32():
    numbers = {
        "rank": effective_rank(torch.randn(2, B, D).bfloat16()),
        "std": embedding_std(torch.randn(2, B, D).bfloat16()),
    }
    assert {value.dtype for value in numbers.values()} == {torch.float32}


def test_entropy_of_a_fair_coin():
    assert entropy(torch.tensor([0.5, 0.5, 0.0])).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize(("views", "images", "dim"), [(2, 7, 5), (3, 4, 9), (1, 2, 1)])
def test_image_cosine_is_the_mean_over_pairs_of_different_images_in_a_view(views, images, dim):
    rows = torch.randn(views, images, dim, dtype=torch.float64)
    pairs = [
        F.cosine_similarity(rows[v, i], rows[v, j], dim=0)
        for v in range(views)
        for i in range(images)
        for j in range(images)
        if i != j
    ]
    torch.testing.assert_close(image_cosine(rows), torch.stack(pairs).mean())


def test_image_cosine_of_one_embedding_is_1_and_of_one_image_undefined():
    assert image_cosine(torch.randn(D).expand(2, B, D)).item() == pytest.approx(1, abs=1e-6)
    assert image_cosine(torch.randn(2, 1, D)).isnan()


@pytest.mark.parametrize(("views", "images", "dim"), [(2, 7, 5), (3, 4, 9)])
def test_directions_are_the_participation_ratio_of_the_covariance(views, images, dim):
    rows = torch.randn(views, images, dim, dtype=torch.float64)
    values = [torch.linalg.eigvalsh(torch.cov(view.T)) for view in rows]
    expected = torch.stack([value.sum() ** 2 / value.square().sum() for value in values]).mean()
    torch.testing.assert_close(embedding_directions(rows), expected)


def test_directions_of_a_line_are_one_and_of_a_ball_all():
    line = 3 + torch.randn(2, 50, 1, dtype=torch.float64) * torch.randn(D, dtype=torch.float64)
    assert embedding_directions(line).item() == pytest.approx(1)
    axes = torch.cat([torch.eye(D), -torch.eye(D)]).double().expand(2, -1, -1)
    assert embedding_directions(axes).item() == pytest.approx(D)
    assert embedding_directions(torch.zeros(2, B, D)).item() == 0


def test_the_distance_from_chance_and_what_is_costly():
    numbers = diagnose(output(), CrossEntropy(), costly=False)
    assert "effective_rank" not in numbers
    assert numbers["loss_below_chance"].item() == pytest.approx(math.log(K))


def wide(images, dim):
    embedding = torch.randn(2, images, dim, dtype=torch.float64)
    both = Projection(embedding, embedding, embedding, None, (0, 1))
    return diagnose(StepOutput(torch.zeros(()), both, both, Targets(embedding, "embedding", (0, 1))), MSE())


def test_few_images_and_one_dimension_have_no_number_of_directions():
    """They lie on a line, or nearly, whatever the network does."""
    for images, dim in ((7, 6), (2, 6), (8, 1)):
        assert wide(images, dim)["embedding_directions"].isnan()
    assert wide(8, 2)["embedding_directions"].item() > 1
