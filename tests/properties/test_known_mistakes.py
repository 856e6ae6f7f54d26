"""Mistakes that other toolkits made, applied on purpose: each check passes here and fails on the mistake."""

import math
import threading

import pytest
import torch
from torch import nn

from sslkit.clock import Clock
from sslkit.collapse import Centering, NegativeQueue, SinkhornKnopp, sinkhorn_knopp, view_queue
from sslkit.errors import ComponentError
from sslkit.heads.dino_head import DINOHead
from sslkit.heads.swav_head import SwAVHead
from sslkit.losses import MSE, CrossEntropy, InfoNCE, cross_entropy
from sslkit.method.branch import Branch
from sslkit.method.executor import Executor
from sslkit.method.gradients import Clip
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.optimizers.adamw import AdamW
from sslkit.optimizers.larc import LARC
from sslkit.optimizers.lars import LARS
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates
from sslkit.optimizers.sgd import SGD
from sslkit.schedules import Cosine, value_at
from sslkit.teachers import EMA, Copy
from sslkit.types import Projection, Targets

DOUBLE = torch.float64


def answers(logits, ids=(0, 1)):
    return Projection(logits, logits, logits, logits, tuple(ids))


def adamw(model):
    return AdamW().build(parameter_groups(model.student))


def passes_and_fails(check, right, mistaken):
    check(right)
    # Some mistakes the package refuses by itself, in the first step.
    with pytest.raises((AssertionError, ComponentError)):
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


def scored(embedding, prototypes):
    score = lambda rows: rows @ prototypes.T  # noqa: E731
    return Projection(embedding, embedding, embedding, score(embedding), (0, 1), score)


def test_sinkhorn_without_all_reduce_when_there_is_a_queue(monkeypatch):
    old, new, prototypes = (torch.rand(*shape, dtype=DOUBLE) for shape in ((2, 8, 3), (2, 8, 3), (5, 3)))
    alone = SinkhornKnopp(queue_size=8, embed_dim=3, queue_start="0 steps")
    alone.update(scored(old, prototypes))
    whole = alone(scored(new, prototypes)).values

    def check(reduces):
        world = TwoProcesses()
        monkeypatch.setattr(view_queue, "world_size", lambda: 2)
        monkeypatch.setattr(view_queue, "rank", lambda: world.rank.number)
        gathered = lambda t, dim: world.reduce(t, lambda both: torch.cat([*both], dim))  # noqa: E731
        monkeypatch.setattr(view_queue, "gather_over_processes", gathered)
        for name, how in (("max", lambda both: both.amax(0)), ("sum", lambda both: both.sum(0))):
            reduced = (lambda t, how=how: world.reduce(t, how)) if reduces else (lambda t: t)
            monkeypatch.setattr(sinkhorn_knopp, f"{name}_over_processes", reduced)

        def process(rank):
            operator = SinkhornKnopp(queue_size=8, embed_dim=3, queue_start="0 steps")
            mine = slice(4 * rank, 4 * rank + 4)
            operator.update(scored(old[:, mine], prototypes))
            return operator(scored(new[:, mine], prototypes)).values

        assert torch.allclose(torch.cat(world.run(process), 1), whole, rtol=1e-12, atol=0)

    passes_and_fails(check, True, False)


class QueueCreatedLate(SinkhornKnopp):
    """The queue comes into being when it is first filled, which is after the checkpoint was loaded."""

    def __init__(self):
        super().__init__(queue_size=4, embed_dim=3, queue_start="2 steps")
        self.queue = None

    def update(self, teacher, clock=None):
        if self.queue is None and self._has_started(clock):
            self.queue = view_queue.ViewQueue(2, 4, 3)
        super().update(teacher, clock)


def test_a_queue_created_after_the_checkpoint_was_loaded():
    def check(operator):
        first, resumed, prototypes = operator(), operator(), torch.randn(5, 3)
        for step in range(4):
            first.update(scored(torch.randn(2, 4, 3), prototypes), Clock(step, 9, 9))
        resumed.load_state_dict(first.state_dict(), strict=False)
        answers = scored(torch.randn(2, 4, 3), prototypes)
        assert torch.equal(resumed(answers, Clock(4, 9, 9)).values, first(answers, Clock(4, 9, 9)).values)

    passes_and_fails(check, lambda: SinkhornKnopp(queue_size=4, embed_dim=3, queue_start="2 steps"), QueueCreatedLate)


class BatchPushedBeforeCodes(SinkhornKnopp):
    def forward(self, teacher, clock=None):
        self.queue.push(teacher.embedding)
        return super().forward(teacher, clock)


class QueueOfScores(SinkhornKnopp):
    """Old images keep the scores that the prototypes of their own step gave them."""

    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.scores = None

    def forward(self, teacher, clock=None):
        stale = lambda rows: self.scores  # noqa: E731
        return super().forward(Projection(*[teacher.embedding] * 3, teacher.logits, (0, 1), stale), clock)

    def update(self, teacher, clock=None):
        super().update(teacher, clock)
        self.scores = teacher.logits


class QueueUsedHalfFull(SinkhornKnopp):
    def __init__(self, **arguments):
        super().__init__(**arguments)
        self.queue.is_full = lambda batch_size: True


class OldestFirst(SinkhornKnopp):
    """The first rows of the joined batch are taken for the batch, but the queue comes first."""

    def forward(self, teacher, clock=None):
        queued = self._queued_logits(teacher, clock)
        joined = teacher.logits if queued is None else torch.cat([queued, teacher.logits], 1)
        return Targets(sinkhorn_knopp.balance(joined, 0.05, 3)[:, :4], "probabilities", (0, 1))


@pytest.mark.parametrize("mistake", [BatchPushedBeforeCodes, QueueOfScores, QueueUsedHalfFull, OldestFirst])
def test_the_queue_of_sinkhorn(mistake):
    batches, prototypes = torch.randn(4, 2, 4, 3, dtype=DOUBLE), torch.randn(4, 5, 3, dtype=DOUBLE) / 9

    def check(operator):
        operator = operator(queue_size=8, embed_dim=3, queue_start="0 steps")
        for step in range(4):
            rows = torch.cat([batches[step - 1], batches[step - 2], batches[step]], 1) if step > 1 else batches[step]
            codes = sinkhorn_knopp.balance(rows @ prototypes[step].T, 0.05, 3)[:, -4:]
            answers = scored(batches[step], prototypes[step])
            assert torch.allclose(operator(answers, Clock(step, 4, 4)).values, codes, rtol=1e-11, atol=0)
            operator.update(answers, Clock(step, 4, 4))

    passes_and_fails(check, SinkhornKnopp, mistake)


class NeverNormalises(SwAVHead):
    def before_step(self):
        pass


def test_swavs_prototypes_are_scaled_to_1_at_the_start_of_every_step(tiny):
    def check(head):
        student = Branch(tiny.Backbone(), head(5, num_prototypes=11, hidden_dim=7, embed_dim=6)).double()
        model = StudentTeacher(student, teacher_update=Copy(), collapse=SinkhornKnopp(), loss=CrossEntropy())
        optimizer = adamw(model)
        set_rates(optimizer, 0.1, 0.0)
        for _ in range(2):
            output = train_step(model, tiny.views(), optimizer)
            # The score of a prototype with itself, had it been an image: the logits are cosines.
            weight = torch.linalg.lstsq(output.student.embedding.flatten(0, 1), output.student.logits.flatten(0, 1))
            assert torch.allclose(weight.solution.norm(dim=0), torch.ones(11, dtype=DOUBLE), rtol=1e-6, atol=0)

    passes_and_fails(check, SwAVHead, NeverNormalises)


def test_codes_of_scores_divided_by_the_students_temperature():
    logits = torch.rand(2, 4, 5, dtype=DOUBLE)

    def check(temperature):
        weights = torch.exp(logits[0] / 0.05)
        for _ in range(3):
            weights = weights / weights.sum(0)
            weights = weights / weights.sum(1, keepdim=True)
        assert torch.allclose(SinkhornKnopp()(answers(logits / temperature)).values[0], weights, rtol=1e-11, atol=0)

    passes_and_fails(check, 1.0, 0.1)


def test_who_is_decayed_and_adapted():
    """SwAV's published code decays and adapts every parameter; BYOL's leaves out biases and norms, of both."""

    def check(kind, moved):
        linear = nn.Linear(2, 2).double()
        with torch.no_grad():
            linear.bias.copy_(torch.tensor([3.0, 4.0]))
        optimizer = kind.build(parameter_groups(linear, kind.decays_vectors))
        set_rates(optimizer, 1.0, 0.5)
        linear.bias.grad = torch.tensor([2.0, 0.0], dtype=DOUBLE)
        optimizer.step()
        assert linear.bias.tolist() == pytest.approx(moved, rel=1e-6)

    everyone, left_out = [3.0 - 0.1 * 3.5 * 5 / 4.5, 4.0 - 0.1 * 2.0 * 5 / 4.5], [1.0, 4.0]
    passes_and_fails(lambda kind: check(kind, everyone), LARC(trust=0.1), LARS(trust=0.1))
    passes_and_fails(lambda kind: check(kind, left_out), LARS(trust=0.1), LARC(trust=0.1))
    # MoCo's published code decays everything, and adapts nothing.
    passes_and_fails(lambda kind: check(kind, [3.0 - 2.0 - 1.5, 4.0 - 2.0]), SGD(), SGD(decays_vectors=False))


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


# MoCo.


class EnqueuedBeforeLogits(NegativeQueue):
    def forward(self, teacher, clock=None):
        self.update(teacher)
        return super().forward(teacher)


class EnqueuedTwice(NegativeQueue):
    """Once more in the forward pass, after the negatives were taken."""

    def forward(self, teacher, clock=None):
        targets = super().forward(teacher)
        self.update(teacher)
        return targets


class SharedQueue(NegativeQueue):
    """The targets hold the queue itself, which the update then changes."""

    def forward(self, teacher, clock=None):
        return Targets(teacher.embedding, "embedding", teacher.view_ids, negatives=self.queue)


@pytest.mark.parametrize("mistake", [EnqueuedBeforeLogits, EnqueuedTwice, SharedQueue])
def test_the_keys_of_this_step_are_not_its_negatives(tiny, mistake):
    def check(operator):
        slots = {"teacher_update": EMA(), "collapse": operator(6, 8), "loss": InfoNCE()}
        model = StudentTeacher(tiny.branch(num_prototypes=None), student_views=[0], teacher_views=[1], **slots)
        model.double()
        for step in range(3):
            before = model.collapse.queue.clone()
            output = train_step(model, tiny.views(num_local=0), adamw(model))
            assert torch.equal(output.targets.negatives, before)
            assert int(model.collapse.pointer) == (4, 0, 4)[step]
            new = model.collapse.queue[4 * (step % 2) :][:4]
            assert torch.allclose(new, output.teacher.embedding[0], rtol=1e-12, atol=0)

    passes_and_fails(check, NegativeQueue, mistake)


class QueueAsAttribute(NegativeQueue):
    def __init__(self, embed_dim, size):
        super().__init__(embed_dim, size)
        queue = self._buffers.pop("queue")
        self.queue = queue


def test_queue_lost_on_resume():
    def check(operator):
        first, resumed = operator(3, 6), operator(3, 6)
        first.update(answers(torch.randn(1, 4, 3), (1,)))
        resumed.load_state_dict(first.state_dict())
        assert torch.equal(resumed.queue, first.queue)

    passes_and_fails(check, NegativeQueue, QueueAsAttribute)


# BYOL.


def test_byols_loss_halved():
    def check(reduction):
        one, other = torch.eye(2, dtype=DOUBLE)[:, None]
        student = answers(torch.stack([one, other]), (0, 1))
        # View 0 meets its opposite and costs 4, view 1 an answer at a right angle and costs 2.
        targets = Targets(torch.stack([one, -one]), "embedding", (0, 1))
        assert MSE(reduction)(student, targets).item() == pytest.approx(6.0, rel=1e-14)

    passes_and_fails(check, "sum", "mean")


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
