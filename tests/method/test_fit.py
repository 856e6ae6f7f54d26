"""Which parts fit; tests/properties/test_mixtures.py walks all of the package's own."""

import pytest

from sslkit.collapse import BatchSoftmax, Centering, NegativeQueue, SinkhornKnopp
from sslkit.contracts import CollapseOperator, Loss
from sslkit.errors import RecipeError
from sslkit.losses import MSE, CrossEntropy, InfoNCE
from sslkit.method.fit import check_fit
from sslkit.types import Targets


class Regression(Loss):
    accepts = frozenset({"embedding", "logits"})

    def forward(self, student, targets):
        return (student.embedding[1] - targets.values[0]).square().mean()


class Contrast(Regression):
    accepts = frozenset({"embedding"})
    needs_negatives = True


class EmbeddingToProbabilities(CollapseOperator):
    reads = "embedding"

    def forward(self, teacher, clock=None):
        return Targets(teacher.embedding.softmax(-1), "probabilities", teacher.view_ids)


class Noise(EmbeddingToProbabilities):
    yields = "embedding"
    gives_negatives = True


NO_OPERATOR = "a method without collapse operator"
UNSHARPENED = Centering(11, temperature=None)
WITH = " --method.head '{DINOHead: {num_prototypes: 4096}}'"
WITHOUT = " --method.head.num_prototypes null --optimization.freeze.prototypes null"


@pytest.mark.parametrize(
    ("num_prototypes", "operator", "loss"),
    [
        *((11, operator, CrossEntropy()) for operator in (Centering(11), SinkhornKnopp(), BatchSoftmax())),
        (11, UNSHARPENED, Regression()),
        (11, EmbeddingToProbabilities(), CrossEntropy()),
        (None, None, Regression()),
        (None, None, InfoNCE(negatives="batch")),
        (None, NegativeQueue(6, 5), InfoNCE()),
        (None, Noise(), Contrast()),
    ],
)
def test_parts_that_fit_are_taken(tiny, num_prototypes, operator, loss):
    check_fit(tiny.Head(num_prototypes), operator, loss)


@pytest.mark.parametrize(
    ("num_prototypes", "operator", "loss", "said"),
    [
        (11, Centering(64), CrossEntropy(), "Centering was built with num_prototypes=64, but the num_prototypes of"),
        (11, Centering(1), CrossEntropy(), "Centering was built with num_prototypes=1, but the num_prototypes of"),
        (11, Centering(12, temperature=None), MSE(), "Centering was built with num_prototypes=12, but the"),
        (
            11,
            SinkhornKnopp(queue_size=8, embed_dim=5),
            CrossEntropy(),
            "SinkhornKnopp was built with embed_dim=5, but the embed_dim of TinyHead",
        ),
        (None, NegativeQueue(7, 5), InfoNCE(), "NegativeQueue was built with embed_dim=7, but the embed_dim of"),
    ],
)
def test_operators_of_another_size_than_the_heads_are_refused(tiny, num_prototypes, operator, loss, said):
    with pytest.raises(RecipeError, match=f"method.collapse: {said} "):
        check_fit(tiny.Head(num_prototypes), operator, loss)


def test_a_part_that_does_not_say_its_size_fits_all(tiny):
    head = tiny.Head(11)
    head.num_prototypes = None
    check_fit(head, Centering(64), CrossEntropy())
    check_fit(tiny.Head(11), SinkhornKnopp(embed_dim=5), CrossEntropy())


@pytest.mark.parametrize(
    ("num_prototypes", "operator", "loss", "said", "options"),
    [
        (None, Centering(11), CrossEntropy(), "collapse: Centering needs a head with prototypes. Add", [WITH.strip()]),
        (None, UNSHARPENED, Regression(), "collapse: Centering needs a head with prototypes. Add", [WITH.strip()]),
        (
            None,
            EmbeddingToProbabilities(),
            CrossEntropy(),
            "collapse: EmbeddingToProbabilities needs a head with prototypes. Add",
            [WITH.strip()],
        ),
        (
            11,
            None,
            CrossEntropy(),
            f"loss: CrossEntropy takes probabilities, but {NO_OPERATOR} yields embedding. Add one of",
            ["--method.loss MSE" + WITHOUT, "--method.collapse '{Centering: {temperature: 0.04}}'"],
        ),
        (
            None,
            None,
            CrossEntropy(),
            f"loss: CrossEntropy takes probabilities, but {NO_OPERATOR} yields embedding. Add one of",
            ["--method.loss MSE", "--method.collapse '{Centering: {temperature: 0.04}}'" + WITH],
        ),
        (
            11,
            UNSHARPENED,
            CrossEntropy(),
            "loss: CrossEntropy takes probabilities, but Centering yields logits. Add one of",
            ["--method.loss MSE", "--method.collapse '{Centering: {temperature: 0.04}}'"],
        ),
        (
            11,
            SinkhornKnopp(),
            Regression(),
            "loss: Regression takes embedding or logits, but SinkhornKnopp yields probabilities. Add one of",
            [
                "--method.loss CrossEntropy",
                "--method.collapse null" + WITHOUT,
                "--method.collapse '{Centering: {temperature: null}}'",
            ],
        ),
        (
            11,
            Centering(11),
            Contrast(),
            "loss: Contrast takes embedding, but Centering yields probabilities. Add one of",
            ["--method.loss CrossEntropy", "--method.collapse NegativeQueue" + WITHOUT],
        ),
        (
            None,
            Noise(),
            CrossEntropy(),
            "loss: CrossEntropy takes probabilities, but Noise yields embedding. Add one of",
            [
                "--method.loss '{InfoNCE: {negatives: targets}}'",
                "--method.collapse '{Centering: {temperature: 0.04}}'" + WITH,
            ],
        ),
        (
            11,
            None,
            Contrast(),
            "loss: Contrast needs negatives, which a method without collapse operator does not give. Add one of",
            [
                "--method.collapse NegativeQueue" + WITHOUT,
                "--method.loss '{InfoNCE: {negatives: batch}}'" + WITHOUT,
            ],
        ),
        (
            None,
            Noise(),
            InfoNCE(negatives="batch"),
            "collapse: Noise gives negatives, which InfoNCE does not read. Add one of",
            ["--method.loss '{InfoNCE: {negatives: targets}}'", "--method.collapse null"],
        ),
        (
            11,
            None,
            MSE(),
            "head: nothing scores the prototypes of TinyHead, so nothing would train them: a method without collapse "
            "operator yields embeddings, and MSE compares those. Add",
            [WITHOUT.strip()],
        ),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_what_mends_it(tiny, num_prototypes, operator, loss, said, options):
    with pytest.raises(RecipeError) as refusal:
        check_fit(tiny.Head(num_prototypes), operator, loss)
    assert str(refusal.value) == "\n  ".join([f"method.{said}", *options])
