"""Components that lack what their contract asks for, or keep state where it would be lost."""

from typing import ClassVar, Literal

import pytest
import torch
from torch import nn

from sslkit.checks.components import check_component, fits
from sslkit.collapse import Centering
from sslkit.contracts import Backbone, CollapseOperator, Evaluator, Head, ImageSource, Loss, TeacherUpdate, ViewMaker
from sslkit.errors import ComponentError
from sslkit.losses import CrossEntropy
from sslkit.schedules import Constant
from sslkit.types import Features, Sample, Targets


class AnyLoss(Loss):
    accepts = frozenset({"probabilities"})

    def forward(self, student, targets):
        return student.logits.mean()


class AnyOperator(CollapseOperator):
    def forward(self, teacher, clock=None):
        return Targets(teacher.logits, "logits", teacher.view_ids)


class AnyHead(Head):
    embed_dim = 4

    def __init__(self):
        super().__init__()
        self.projector, self.prototypes = nn.Linear(3, 4), None


class AnyBackbone(Backbone):
    embed_dim = 4

    def forward(self, images):
        return Features(images.mean((2, 3)))


class AnyImages(ImageSource):
    name = "any"
    keys = torch.arange(4)

    def read(self, index):
        return Sample(torch.zeros(3, 8, 8), index)


class NoAccepts(Loss):
    forward = AnyLoss.forward


class NoSuper(AnyLoss):
    def __init__(self):
        self.temperature = 1.0


class NoViews(ViewMaker):
    def prepare(self, sample, epoch, seed):
        return (sample.image,)

    def make(self, prepared, keys, epoch, seed):
        return None


class NoCommand(Evaluator):
    protocol = "none"

    def run(self, backbone, data):
        return []


def having(made, **attributes):
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def classed(cls, **names):
    return type(cls.__name__, (cls,), {**names, "__module__": __name__})()


@pytest.mark.parametrize(
    ("part", "said"),
    [
        (NoAccepts(), "NoAccepts does not set accepts, which is a frozenset, each one of 'probabilities', 'embedding'"),
        (NoSuper(), "NoSuper: __init__ does not call super().__init__() before it sets anything"),
        (NoViews(), "does not set num_globals, which is a whole number: how many views are global"),
        (NoCommand(), "does not set command, which is text: its name on the command line"),
        (classed(AnyLoss, accepts="probabilities"), "accepts must be a frozenset, each one of"),
        (classed(AnyLoss, accepts={"probability"}), "not {'probability'}"),
        (classed(AnyLoss, needs_negatives=lambda self: True), "not a method; put @property above def needs_negatives"),
        (classed(AnyOperator, yields=lambda self: "logits"), "not a method; put @property above def yields"),
        (classed(AnyOperator, yields="scores"), "yields must be one of 'probabilities', 'embedding', 'logits', not"),
        (classed(AnyOperator, reads="scores"), "reads must be one of"),
        (having(AnyLoss(), temperature=Constant(1.0)), "temperature is a schedule, Constant, but no method of a Loss"),
        (
            having(NoViews(), num_globals=1, sizes=[8], scale=Constant(1.0)),
            "no method of a ViewMaker is given the clock",
        ),
        (having(AnyLoss(), scale=nn.Parameter(torch.ones(()))), "scale would never be trained"),
        (having(AnyOperator(), layer=nn.Linear(2, 2)), "layer.weight, layer.bias would never be trained"),
        (having(AnyHead(), extra=nn.Linear(2, 2)), "extra.weight, extra.bias would never be trained, since only proj"),
        (having(AnyOperator(), center=torch.zeros(3)), "center is a plain tensor, which checkpoints do not save"),
        (having(AnyBackbone(), embed_dim=4.0), "embed_dim must be a whole number, not 4.0"),
        (having(AnyHead(), embed_dim=None), "embed_dim must be a whole number, not NoneType"),
        (
            classed(AnyLoss, accepts=frozenset()),
            "accepts is empty; it is a frozenset of probabilities, ",
        ),
        (having(AnyImages(), labels=torch.arange(4), class_names=["a"]), "class_names has 1 names, but a label is 3"),
        (having(AnyImages(), keys=[0, 1, 2, 3]), "keys must be a Tensor, not [0, 1, 2, 3]"),
        (having(AnyImages(), keys=torch.rand(4)), "keys are one int64 an image, (N,), not torch.float32 (4,)"),
        (
            having(AnyImages(), labels=torch.arange(3)),
            "labels are one whole number an image, (4,), not torch.int64 (3,",
        ),
        (classed(AnyImages, __len__=lambda self: 9), "len() is 9, but there are 4 keys"),
    ],
)
def test_a_component_that_breaks_its_contract_is_refused(part, said):
    with pytest.raises(ComponentError) as refusal:
        check_component(part)
    assert str(refusal.value).startswith(f"{__name__}.{type(part).__name__}")
    assert said in str(refusal.value)


def test_a_module_inside_a_component_is_looked_at_too():
    class Inner(nn.Module):
        def __init__(self):
            self.width = 1

    with pytest.raises(ComponentError, match=r"Inner: __init__ does not call super\(\)\.__init__\(\)"):
        check_component(having(AnyBackbone(), inner=Inner()))


def test_a_head_without_projector_is_refused():
    head = AnyHead()
    del head.projector
    with pytest.raises(ComponentError, match=r"does not set projector, which is a Module: \(N, F\) to \(N, D\)"):
        check_component(head)


@pytest.mark.parametrize(
    "part",
    [
        AnyLoss(),
        having(AnyLoss(), scale=nn.Parameter(torch.ones(()), requires_grad=False)),
        classed(AnyLoss, accepts=("probabilities",)),
        AnyHead(),
        having(AnyBackbone(), momentum=Constant(1.0)),
        AnyImages(),
        CrossEntropy(),
        Centering(4, temperature=Constant(1.0)),
        having(type("Follows", (TeacherUpdate,), {})(), momentum=Constant(1.0)),
        nn.Linear(2, 2),
    ],
)
def test_other_components_are_taken(part):
    check_component(part)


def test_what_is_computed_when_it_is_read_is_not_read():
    class Lazy(AnyImages):
        @property
        def labels(self):
            raise RuntimeError("read")

    check_component(Lazy())


@pytest.mark.parametrize(
    ("value", "hint", "fit"),
    [
        (3, int, True),
        (True, int, False),
        (3, float, True),
        ("3", float, False),
        (None, int | None, True),
        ("a", Literal["a", "b"], True),
        (["a"], Literal["a", "b"], False),
        (frozenset("a"), ClassVar[frozenset[Literal["a"]]], True),
        ("a", frozenset[Literal["a"]], False),
        (3, frozenset[Literal["a"]], False),
        ((0.1, 1), tuple[float, float], True),
        ((0.1,), tuple[float, float], False),
    ],
)
def test_values_fit_their_types(value, hint, fit):
    assert fits(value, hint) is fit
