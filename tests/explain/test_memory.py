"""Bytes of a step, against what can be counted by hand and against tensors that exist."""

import copy
import gc
import weakref

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from sslkit import EMA, SGD, AdamW, Centering, Copy, CrossEntropy, Features, NegativeQueue, StudentTeacher, ViewMaker
from sslkit.contracts import Backbone, CollapseOperator
from sslkit.errors import NotSupported
from sslkit.explain.memory import estimate_memory
from sslkit.losses import InfoNCE
from sslkit.method.branch import Branch
from sslkit.method.executor import Executor
from sslkit.method.step import train_step
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates
from sslkit.types import Targets, Views


class Squares(ViewMaker):
    """Views of these sides."""

    def __init__(self, *sizes, num_globals=2):
        self.sizes, self.num_globals = sizes, num_globals

    def prepare(self, sample, epoch, seed):
        raise AssertionError("no image is needed")

    make = prepare


class Wide(Backbone):
    """One map of 100 channels, as large as the image, and its square."""

    embed_dim = 5

    def __init__(self):
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 100, 1), nn.Linear(100, 5)

    def forward(self, images, mask=None):
        return Features(self.linear(self.conv(images).square().mean((2, 3))))


def bytes_of(tensors):
    return sum(tensor.nbytes for tensor in tensors)


def dino(tiny, backbone=None, teacher=None):
    student = Branch(backbone or tiny.Backbone(), tiny.Head(batch_norm=True))
    return StudentTeacher(student, teacher_update=teacher or EMA(), collapse=Centering(11), loss=CrossEntropy())


def test_networks_and_states_by_hand(tiny):
    model = dino(tiny)
    memory = estimate_memory(model, Squares(9, 9, 6), AdamW(), 4)
    student, trained = [*model.student.parameters()], bytes_of(p for p in model.student.parameters() if p.requires_grad)
    assert memory.networks == 2 * bytes_of([*student, *model.student.buffers()]) + 4 * 11
    assert memory.optimizer == 2 * trained + 4 * len(student)  # two moments, and a count of steps each
    assert memory.peak > memory.networks + memory.optimizer
    assert estimate_memory(model, Squares(9, 9, 6), SGD(), 4).optimizer == trained
    shared = estimate_memory(dino(tiny, teacher=Copy()), Squares(9, 9, 6), SGD(), 4)
    assert shared.networks == bytes_of([*student, *model.student.buffers()]) + 4 * 11


@pytest.mark.parametrize("batch", [3, 10])
def test_the_peak_is_what_the_widest_layer_keeps(tiny, batch):
    """A map of 100 channels is kept for its square; the gradient of that is made of four more as large."""
    model = dino(tiny, Wide())
    one_map = 2 * batch * 100 * 32 * 32 * 4
    peak = estimate_memory(model, Squares(32, 32), SGD(), batch).peak
    images = 2 * batch * 3 * 32 * 32 * 4
    assert peak == pytest.approx(5 * one_map + images, rel=0.01)


def test_micro_batches_and_half_precision_take_less(tiny):
    model, views = dino(tiny, Wide()), Squares(32, 32)
    whole, cut = (estimate_memory(model, views, SGD(), 16, count).peak for count in (1, 4))
    assert cut < 0.6 * whole  # the teacher sees the whole batch
    half = [estimate_memory(model, views, SGD(), 16, precision=name).peak for name in ("bf16", "fp16")]
    assert half[0] == half[1] < 0.75 * whole
    assert estimate_memory(model, views, SGD(), 32).peak == pytest.approx(2 * whole, rel=0.01)


class Existing(TorchDispatchMode):
    """The most bytes of real tensors that exist at a time: all of them are looked at after each operation."""

    def __init__(self, tensors):
        super().__init__()
        self.known, self.peak = [], 0
        self.look(tensors)

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        self.look(leaf for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor))
        return result

    def look(self, tensors):
        self.known = [kept for kept in self.known if kept() is not None]
        self.known += [weakref.ref(tensor.untyped_storage()) for tensor in tensors]
        storages = {kept()._cdata: kept().nbytes() for kept in self.known}
        self.peak = max(self.peak, sum(storages.values()))


@pytest.mark.parametrize("accumulation", [1, 3])
@pytest.mark.parametrize("optimizer", [SGD(), AdamW()])
def test_a_step_on_real_tensors_has_the_same_peak(tiny, optimizer, accumulation):
    model = dino(tiny).float()
    memory = estimate_memory(model, Squares(9, 9, 6), optimizer, 7, accumulation)
    torch.manual_seed(0)
    views = Views.of([torch.randn(7, 3, size, size) for size in (9, 9, 6)])
    stepper = optimizer.build(parameter_groups(model.student, optimizer.decays_vectors))
    set_rates(stepper, 0.1, 0.1)
    train_step(model, views, stepper)  # makes the state
    stepper.zero_grad()
    gc.collect()
    states = [kept for state in stepper.state.values() for kept in state.values() if isinstance(kept, torch.Tensor)]
    existing = [*model.parameters(), *model.buffers(), *states, *(group.images for group in views.groups)]
    with Existing(existing) as count:
        train_step(model, views, stepper, accumulation=accumulation, executor=Executor())
    assert memory.peak == pytest.approx(count.peak, rel=0.02)


def test_the_model_is_left_as_it_is(tiny):
    model = dino(tiny).float()
    before = copy.deepcopy(model.state_dict())
    estimate_memory(model, Squares(9, 9), AdamW(), 4)
    after = model.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert all(type(p) is nn.Parameter and p.grad is None for p in model.parameters())


def test_a_queue_is_counted(tiny):
    student = Branch(tiny.Backbone(), tiny.Head(None))
    model = StudentTeacher(student, teacher_update=EMA(), collapse=NegativeQueue(6, 5000), loss=InfoNCE())
    memory = estimate_memory(model, Squares(9, 9), SGD(), 4)
    assert memory.networks == 2 * bytes_of(student.parameters()) + 5000 * 6 * 4 + 8


class Asking(CollapseOperator):
    """Looks at numbers before it answers."""

    def __init__(self, by_shape):
        super().__init__()
        self.by_shape = by_shape

    def forward(self, teacher, clock=None):
        scale = 2.0 if teacher.logits.sum() > 0 else 1.0
        if self.by_shape:
            scale = float(len(teacher.logits.nonzero()))
        return Targets((scale * teacher.logits).softmax(-1), "probabilities", teacher.view_ids)


def test_a_part_that_asks_for_a_number_is_told_0_and_one_that_makes_a_shape_of_it_is_said(tiny):
    def estimate(by_shape):
        student = Branch(tiny.Backbone(), tiny.Head())
        model = StudentTeacher(student, teacher_update=EMA(), collapse=Asking(by_shape), loss=CrossEntropy())
        return estimate_memory(model, Squares(9, 9), SGD(), 4)

    assert estimate(False).peak > 0
    with pytest.raises(NotSupported, match="a step cannot run on tensors without values"):
        estimate(True)
