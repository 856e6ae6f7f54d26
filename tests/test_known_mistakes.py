"""Mistakes that other toolkits made, applied on purpose: each check passes here and fails on the mistake."""

import math
import threading

import pytest
import torch
from torch import nn

from sslkit.clock import Clock
from sslkit.collapse import Centering, SinkhornKnopp, sinkhorn_knopp
from sslkit.heads.dino_head import DINOHead
from sslkit.losses import CrossEntropy, cross_entropy
from sslkit.schedules import Cosine, value_at
from sslkit.student_teacher import Branch, StudentTeacher
from sslkit.teachers import EMA
from sslkit.training.executor import Executor
from sslkit.training.optimizers import AdamW, parameter_groups, set_rates
from sslkit.training.step import Clip, train_step
from sslkit.types import Projection, Targets

DOUBLE = torch.float64


def answers(logits, ids=(0, 1)):
    return Projection(logits, logits, logits, logits, tuple(ids))


def adamw(model):
    return AdamW().build(parameter_groups(model.student))


def passes_and_fails(check, right, mistaken):
    check(right)
    with pytest.raises(AssertionError):
        check(mistaken)


# The center.


class CenterAsAttribute(Centering):
    def __init__(self, num_prototypes):
        super().__init__(num_prototypes)
        del self._buffers["center"]
        self.center = torch.zeros(num_prototypes)


class CenterWrittenBeforeRead(Centering):
    def forward(self, teacher, clock=None):
        self.update(teacher)
        return super().forward(teacher)


def test_center_lost_on_resume():
    def check(operator):
        logits = answers(torch.randn(2, 4, 5))
        first, resumed = operator(5), operator(5)
        first.update(logits)
        resumed.load_state_dict(first.state_dict())
        assert torch.equal(resumed(logits).values, first(logits).values)

    passes_and_fails(check, Centering, CenterAsAttribute)


def test_center_of_this_step_in_this_steps_targets():
    def check(operator):
        logits, operator = answers(torch.randn(2, 4, 5)), operator(5)
        assert torch.equal(operator(logits).values, operator(logits).values)

    passes_and_fails(check, Centering, CenterWrittenBeforeRead)


# The moving average.


class EMAOfBuffers(EMA):
    def after_step(self, student, teacher, clock=None):
        super().after_step(student, teacher, clock)
        momentum = value_at(self.momentum, clock)
        for mine, theirs in zip(teacher.buffers(), student.buffers(), strict=True):
            mine.copy_(mine * torch.tensor(momentum).to(mine) + theirs * torch.tensor(1 - momentum).to(mine))


class EMAOfEpochs(EMA):
    def after_step(self, student, teacher, clock=None):
        super().after_step(student, teacher, clock.at(clock.epoch * clock.steps_per_epoch))


def test_ema_of_integer_buffers(tiny):
    def check(rule):
        student = tiny.branch(batch_norm=True)
        model = StudentTeacher(student, teacher_update=rule(0.9), collapse=Centering(11), loss=CrossEntropy())
        for _ in range(2):
            train_step(model, tiny.views(), adamw(model))
        assert model.teacher.head.projector[1].num_batches_tracked == 2

    passes_and_fails(check, EMA, EMAOfBuffers)


def test_ema_momentum_per_epoch():
    def check(rule):
        student, teacher = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
        schedule = Cosine(0.5, 1.0)
        rule, expected = rule(schedule), teacher.weight.item()
        for step in range(6):
            momentum = 1.0 - 0.25 * (1 + math.cos(math.pi * step / 6))
            expected = momentum * expected + (1 - momentum) * student.weight.item()
            rule.after_step(student, teacher, Clock(step, 6, steps_per_epoch=3))
        assert teacher.weight.item() == pytest.approx(expected, rel=1e-6)

    passes_and_fails(check, EMA, EMAOfEpochs)


class UpdatesEveryMicroBatch(Executor):
    """EMA and center follow each micro-batch instead of each step."""

    def __init__(self, model):
        self.model = model

    def backward(self, loss):
        super().backward(loss)
        self.model.teacher_update.after_step(self.model.student, self.model.teacher, Clock())
        self.model.collapse.update(answers(torch.ones(2, 1, 11, dtype=DOUBLE)))


@pytest.mark.parametrize("watched", ["teacher", "collapse"])
def test_ema_and_center_once_per_micro_batch(tiny, watched):
    def check(make_executor):
        states = []
        for accumulation in (1, 4):
            torch.manual_seed(1)
            # The teacher starts elsewhere, so that the average moves it from the first micro-batch on.
            student, other = tiny.branch(), tiny.branch()
            model = StudentTeacher(
                student, teacher=other, teacher_update=EMA(0.9), collapse=Centering(11), loss=CrossEntropy()
            )
            train_step(model, tiny.views(), adamw(model), accumulation=accumulation, executor=make_executor(model))
            states.append(getattr(model, watched).state_dict())
        for name, value in states[0].items():
            assert torch.allclose(states[1][name], value, rtol=1e-11, atol=1e-15)

    passes_and_fails(check, lambda model: Executor(), UpdatesEveryMicroBatch)


# SwAV.


class TwoProcesses:
    """Two threads that stand for two processes: each brings a tensor, both take the reduced one."""

    def __init__(self):
        self.rank = threading.local()
        self.met = threading.Barrier(2, timeout=30)
        self.brought = [None, None]

    def reduce(self, tensor, how):
        self.brought[self.rank.number] = tensor
        self.met.wait()
        reduced = how(torch.stack(self.brought))
        self.met.wait()
        return reduced

    def run(self, work):
        results = [None, None]

        def process(number):
            self.rank.number = number
            results[number] = work(number)

        threads = [threading.Thread(target=process, args=(number,)) for number in (0, 1)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return results


def test_sinkhorn_without_all_reduce(monkeypatch):
    logits = torch.rand(2, 8, 5, dtype=DOUBLE)
    whole = SinkhornKnopp()(answers(logits)).values

    def check(reduces_sums):
        world = TwoProcesses()
        monkeypatch.setattr(sinkhorn_knopp, "max_over_processes", lambda t: world.reduce(t, lambda both: both.amax(0)))
        alone = lambda t: t  # noqa: E731
        sums = (lambda t: world.reduce(t, lambda both: both.sum(0))) if reduces_sums else alone
        monkeypatch.setattr(sinkhorn_knopp, "sum_over_processes", sums)
        shards = world.run(lambda rank: SinkhornKnopp()(answers(logits[:, 4 * rank : 4 * rank + 4])).values)
        assert torch.allclose(torch.cat(shards, 1), whole, rtol=1e-12, atol=0)

    passes_and_fails(check, True, False)


def test_codes_taken_from_local_views(tiny):
    def check(teacher_views):
        slots = {"teacher_update": EMA(), "collapse": SinkhornKnopp(), "loss": CrossEntropy()}
        model = StudentTeacher(tiny.branch(), teacher_views=teacher_views, **slots)
        output = train_step(model, tiny.views(), adamw(model))
        assert output.targets.view_ids == (0, 1)

    passes_and_fails(check, "globals", "all")


def test_a_view_matched_with_itself(monkeypatch):
    probabilities = torch.rand(2, 3, 5, dtype=DOUBLE).softmax(-1)
    logits = torch.randn(4, 3, 5, dtype=DOUBLE)
    log_student = (logits / 0.1).log_softmax(-1)
    costs = [-(probabilities[t] * log_student[s]).sum(-1).mean() for t in range(2) for s in range(4) if s != t]

    def check(pairs):
        monkeypatch.setattr(cross_entropy, "matching_pairs", pairs)
        loss = CrossEntropy()(answers(logits, range(4)), Targets(probabilities, "probabilities", (0, 1)))
        assert loss.item() == pytest.approx(sum(costs).item() / 6, rel=1e-12)

    every_pair = lambda teacher, student: [(t, s) for t in range(len(teacher)) for s in range(len(student))]  # noqa: E731
    passes_and_fails(check, cross_entropy.matching_pairs, every_pair)


# DINO.


def head_with_linear_prototypes(**sizes):
    head = DINOHead(**sizes)
    head.prototypes = nn.Linear(head.embed_dim, head.num_prototypes, bias=False)
    return head


def test_prototypes_as_a_plain_linear_layer(tiny):
    def check(head):
        student = Branch(tiny.Backbone(), head(in_dim=5, num_prototypes=11, hidden_dim=8, embed_dim=6)).double()
        model = StudentTeacher(student, teacher_update=EMA(), collapse=Centering(11), loss=CrossEntropy())
        optimizer = adamw(model)
        set_rates(optimizer, 0.1, 0.0)
        for _ in range(2):
            train_step(model, tiny.views(), optimizer)
        # With unit prototypes, logits are cosines and the prototypes themselves score 1.
        weights = student.score(torch.eye(6, dtype=DOUBLE)).T
        assert torch.allclose(weights.norm(dim=1), torch.ones(11, dtype=DOUBLE), rtol=1e-12, atol=0)

    passes_and_fails(check, DINOHead, head_with_linear_prototypes)


def test_global_norm_clipping():
    def check(clip):
        parameters = [nn.Parameter(torch.zeros(2, dtype=DOUBLE)) for _ in range(2)]
        parameters[0].grad = torch.tensor([3.0, 4.0], dtype=DOUBLE)
        parameters[1].grad = torch.tensor([0.3, 0.4], dtype=DOUBLE)
        clip(parameters)
        assert parameters[0].grad.tolist() == pytest.approx([0.6, 0.8], rel=1e-6)
        assert parameters[1].grad.tolist() == pytest.approx([0.3, 0.4], rel=1e-12)

    passes_and_fails(check, Clip(1.0), Clip(1.0, per="all"))


class ZeroGradients(torch.optim.AdamW):
    """A frozen gradient is 0 instead of None, so weight decay and old moments still act."""

    def step(self, closure=None):
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        super().step()


@pytest.mark.parametrize("mistake", ["not frozen", "zero gradient"])
def test_no_frozen_last_layer(tiny, mistake):
    def check(mistaken):
        model = StudentTeacher(tiny.branch(), teacher_update=EMA(), collapse=Centering(11), loss=CrossEntropy())
        before = model.student.head.prototypes.weight.detach().clone()
        kind = ZeroGradients if mistaken == "zero gradient" else torch.optim.AdamW
        optimizer = kind(parameter_groups(model.student), lr=0.1, weight_decay=0.1)
        train_step(model, tiny.views(), optimizer, frozen=() if mistaken == "not frozen" else ("prototypes",))
        assert torch.equal(model.student.head.prototypes.weight, before)

    passes_and_fails(check, None, mistake)
