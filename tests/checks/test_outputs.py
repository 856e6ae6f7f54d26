"""What components return, of another kind or shape than their contract says."""

from types import SimpleNamespace

import numpy
import pytest
import torch
from torch import nn

from sslkit.checks.outputs import (
    check_chance,
    check_features,
    check_log_probabilities,
    check_loss,
    check_numbers,
    check_optimizer,
    check_prepared,
    check_recommendations,
    check_results,
    check_rows,
    check_sample,
    check_schedule,
    check_targets,
    check_views,
    stack_prepared,
)
from sslkit.clock import Clock
from sslkit.errors import ComponentError, NotFinite
from sslkit.recommendation import Recommendation
from sslkit.types import Features, Projection, Sample, Targets, Views


class Part(SimpleNamespace):
    """Any component, with the attributes that a check reads."""


OPERATOR = Part(yields="probabilities", gives_negatives=False)
NEGATIVES = Part(yields="embedding", gives_negatives=True)
TEACHER = Projection.of(embedding=torch.zeros(2, 4, 5), logits=torch.zeros(2, 4, 7))
MAKER = Part(sizes=[8, 4], num_globals=1, channels=3)
SOURCE = Part(channels=3, keys=torch.arange(9))
GROUPS = [{"params": [nn.Parameter(torch.ones(2))], "decay": True, "lr_scale": 1.0, "lr": 0.1} for _ in range(2)]
CLOCKS = [Clock(step, 4, 2) for step in range(4)]


def targets(*shape, kind="probabilities", ids=(0, 1), negatives=None):
    return Targets(torch.zeros(shape), kind, ids, negatives)


def crops(*sizes, num_images=2, num_globals=1):
    return Views.of([torch.zeros(num_images, 3, size, size) for size in sizes], num_globals)


@pytest.mark.parametrize(
    ("check", "said"),
    [
        (lambda: check_features(Part(), torch.zeros(2, 5), 2), "forward returns a Tensor, not sslkit.Features: return"),
        (lambda: check_features(Part(), None, 2), "forward returns None, not sslkit.Features"),
        (lambda: check_features(Part(), Features(torch.zeros(2, 5)), 2, 6), "features (2, 5), not (N, F), here (2, 6)"),
        (lambda: check_features(Part(), Features(torch.zeros(2, 5, 3, 3)), 2), "features (2, 5, 3, 3), not (N, F)"),
        (lambda: check_rows(Part(), "projector", (1, 2), 2, 5, "embed_dim"), "projector returns a tuple, not a tensor"),
        (
            lambda: check_rows(Part(), "prototypes", torch.zeros(2, 5), 2, 6, "num_prototypes"),
            "prototypes returns (2, 5) for 2 rows, but num_prototypes is 6",
        ),
        (
            lambda: check_targets(OPERATOR, torch.zeros(2, 4, 7), TEACHER),
            "forward returns a Tensor, not sslkit.Targets",
        ),
        (lambda: check_targets(OPERATOR, targets(2, 4, 7, kind="logits"), TEACHER), "but yields is 'probabilities'"),
        (
            lambda: check_targets(OPERATOR, targets(2, 4, 1), TEACHER),
            "targets (2, 4, 1) of views (0, 1); one entry a te",
        ),
        (lambda: check_targets(OPERATOR, targets(4, 7), TEACHER), "and a prototype is (2, 4, 7)"),
        (lambda: check_targets(OPERATOR, targets(2, 4, 7, ids=(0, 5)), TEACHER), "of views (0, 5)"),
        (lambda: check_targets(NEGATIVES, targets(2, 4, 5, kind="embedding"), TEACHER), "but gives_negatives is True"),
        (lambda: check_features(Part(), Features([1]), 2), "forward returns a list, not a tensor (N, F), as cls"),
        (
            lambda: check_targets(OPERATOR, Targets(torch.zeros(2, 4, 7).long(), "probabilities", (0, 1)), TEACHER),
            "forward returns torch.int64, not a floating tensor, as values of Targets",
        ),
        (lambda: check_loss(Part(), 3.0), "forward returns a float, not a tensor of one number"),
        (lambda: check_loss(Part(), torch.zeros(4)), "forward returns (4,) numbers, not one; end with .mean()"),
        (lambda: check_loss(Part(), torch.tensor(1.0)), "a number without gradient, so nothing would learn"),
        (lambda: check_chance(Part(), "x"), "chance returns a str, not a number"),
        (lambda: check_log_probabilities(Part(), 3), "log_probabilities returns an int, not a tensor"),
        (lambda: check_optimizer(Part(), None, GROUPS), "build returns None, not a torch.optim.Optimizer"),
        (lambda: check_optimizer(Part(), torch.optim.SGD(GROUPS[:1]), GROUPS), "build leaves out 1 parameters"),
        (
            lambda: check_optimizer(Part(), torch.optim.SGD([p for g in GROUPS for p in g["params"]], 0.1), GROUPS),
            "build drops the keys decay and lr_scale",
        ),
        (lambda: check_optimizer(Part(), torch.optim.LBFGS(GROUPS[:1]), GROUPS[:1]), "LBFGS needs a closure"),
        (lambda: check_schedule("lr", lambda clock: None, CLOCKS), "function returns None at step 0, not a finite"),
        (
            lambda: check_schedule("lr", lambda clock: clock.step / 3 - 0.5, CLOCKS, 0),
            "returns -0.5 at step 0, not a f",
        ),
        (lambda: check_schedule("lr", lambda clock: float("nan"), CLOCKS), "returns nan at step 0"),
        (lambda: list(check_recommendations(Part(), None)), "recommend returns None, not recommendations"),
        (lambda: list(check_recommendations(Part(), ["x"])), "recommend returns a str, not recommendations"),
        (lambda: check_sample(SOURCE, 3, torch.zeros(3, 8, 8)), "return Sample(image, int(self.keys[3]))"),
        (lambda: check_sample(SOURCE, 3, Sample("x", 3)), "read gives the image str; it is a tensor (C, H, W)"),
        (
            lambda: check_sample(SOURCE, 3, Sample(torch.zeros(8, 8), 3)),
            "read gives the image (8, 8); it is a tensor",
        ),
        (lambda: check_sample(SOURCE, 3, Sample(torch.zeros(3, 8, 8), "x")), "read gives the key 'x'"),
        (lambda: check_prepared(Part(), torch.zeros(3)), "prepare returns a Tensor, not a tuple of tensors"),
        (lambda: check_prepared(Part(), (1, "x")), "prepare returns (int, str), not a tuple of tensors"),
        (lambda: stack_prepared(Part(), [torch.zeros(3), torch.zeros(4)]), "(3,) of one image and (4,) of another"),
        (lambda: check_views(MAKER, torch.zeros(2), 2), "make returns a Tensor, not sslkit.Views: Views.of makes them"),
        (
            lambda: check_views(MAKER, crops(8), 2),
            "make returns view 1 missing; by sizes, channels and batch it is (2, 3",
        ),
        (
            lambda: check_views(MAKER, crops(8, 4, 4), 2),
            "make returns view 2 (2, 3, 4, 4); by sizes, channels and batch",
        ),
        (
            lambda: check_views(MAKER, crops(8, 5), 2),
            "view 1 (2, 3, 5, 5); by sizes, channels and batch it is (2, 3, 4,",
        ),
        (lambda: check_views(MAKER, crops(8, 4, num_images=1), 2), "view 0 (1, 3, 8, 8); by sizes, channels and batch"),
        (lambda: check_views(MAKER, crops(8, 4, num_globals=2), 2), "2 global views, but num_globals is 1"),
        (lambda: check_numbers(Part(), None), "metrics returns None, not a mapping from names to numbers"),
        (lambda: check_numbers(Part(), {"loss": 1.0}, ["loss"]), "metrics names 'loss', which the log has already"),
        (lambda: check_numbers(Part(), {"a": torch.zeros(3)}), "metrics gives a tensor (3,) as 'a', not a number"),
        (lambda: check_results(Part(), None), 'run returns None, not names and numbers: yield "name", value'),
        (lambda: check_results(Part(), 1.0), "run returns a float, not names and numbers"),
        (lambda: check_results(Part(), []), "run returns nothing, not names and numbers"),
        (lambda: check_results(Part(), ("a", 1.0)), "run returns 'a', not names and numbers"),
        (lambda: check_results(Part(), [("a", "good")]), "run returns 'good' as 'a', not names and numbers"),
        (lambda: check_results(Part(), [("a", 1.0), ("a", 2.0)]), "run yields 'a' twice"),
    ],
)
def test_what_breaks_a_contract_is_refused(check, said):
    with pytest.raises(ComponentError) as refusal:
        check()
    assert said in str(refusal.value)


def test_a_number_that_is_not_finite_is_no_result():
    with pytest.raises(NotFinite, match="a is nan"):
        check_results(Part(), [("a", float("nan"))])


@pytest.mark.parametrize("key", [3, numpy.int64(3), torch.tensor(3)])
def test_any_whole_number_is_a_key(key):
    check_sample(SOURCE, 3, Sample(torch.zeros(3, 8, 8), key))


def test_what_keeps_a_contract_is_taken():
    weight = torch.ones((), requires_grad=True)
    assert check_features(Part(), features := Features(torch.zeros(2, 5)), 2, 5) is features
    check_rows(Part(), "projector", torch.zeros(2, 5), 2, None, "embed_dim")
    assert check_targets(OPERATOR, found := targets(1, 4, 7, ids=(1,)), TEACHER) is found
    check_targets(NEGATIVES, targets(2, 4, 5, kind="embedding", negatives=torch.zeros(3, 5)), TEACHER)
    check_loss(Part(), weight * 2)
    with torch.no_grad():
        check_loss(Part(), weight * 2)
    assert check_optimizer(Part(), optimizer := torch.optim.AdamW(GROUPS), GROUPS) is optimizer
    check_schedule("lr", lambda clock: torch.tensor(0.1), CLOCKS, 0)
    assert list(check_recommendations(Part(), [advice := Recommendation("x")])) == [advice]
    assert check_sample(SOURCE, 3, sample := Sample(torch.zeros(3, 8, 8), 3)) is sample
    assert len(check_prepared(Part(), [torch.zeros(3)])) == 1
    assert stack_prepared(Part(), [torch.zeros(3)] * 2).shape == (2, 3)
    assert check_views(MAKER, views := crops(8, 4), 2) is views
    assert check_numbers(Part(), {"a": torch.zeros(1), "b": 3}).keys() == {"a", "b"}
    assert check_chance(Part(), None) is check_log_probabilities(Part(), None) is None


@pytest.mark.parametrize("value", [3, 3.0, numpy.float32(3), torch.tensor(3.0)])
def test_results_become_plain_numbers(value):
    for results in ([("a", value)], {"a": value}, iter([("a", value)])):
        [(name, number)] = check_results(Part(), results).items()
        assert (name, number, type(number)) == ("a", 3, int if isinstance(value, int) else float)
