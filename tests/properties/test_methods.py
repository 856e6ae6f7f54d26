"""BYOL, MoCo-v2 and SwAV: the step with their parts against their published loops, written out; and all four run."""

import math

import pytest
import torch
from torch.nn import functional as F

from sslkit.clock import Clock
from sslkit.collapse import Centering, NegativeQueue, SinkhornKnopp
from sslkit.errors import RecipeError
from sslkit.heads.dino_head import DINOHead
from sslkit.heads.mlp_head import MLPHead
from sslkit.heads.mlp_predictor import MLPPredictor
from sslkit.heads.swav_head import SwAVHead
from sslkit.losses import MSE, CrossEntropy, InfoNCE
from sslkit.method.branch import Branch
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.optimizers.adamw import AdamW
from sslkit.optimizers.larc import LARC
from sslkit.optimizers.lars import LARS
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates
from sslkit.optimizers.sgd import SGD
from sslkit.teachers import EMA, Copy

DOUBLE = torch.float64
# Batch norm takes away what these add, so their gradient is rounding noise.
WITHOUT_EFFECT = {"backbone.linear.bias", "head.projector.0.bias"}


def values(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def relative_difference(ours, theirs):
    assert ours.keys() == theirs.keys()
    difference = sum((ours[name] - theirs[name]).square().sum() for name in ours)
    return math.sqrt(difference / sum(theirs[name].square().sum() for name in theirs))


def optimizer_of(kind, model):
    return kind.build(parameter_groups(model.student, kind.decays_vectors))


def learning(parameters):
    return {name: p.detach().requires_grad_() for name, p in parameters.items()}


def gradients_of(loss, parameters):
    return dict(zip(parameters, torch.autograd.grad(loss, list(parameters.values())), strict=True))


def unit(rows):
    return rows / rows.square().sum(-1, keepdim=True).sqrt()


def preprocessing(module):
    return {name: buffer.clone() for name, buffer in module.named_buffers() if ".running_" in name}


def normed(backbone):
    backbone.conv = torch.nn.Sequential(backbone.conv, torch.nn.BatchNorm2d(4))
    return backbone


def normalised(p, running, name, rows):
    """Batch norm of what is seen at a time, where the network has one there; moves the running statistics."""
    if f"{name}.running_mean" not in running:
        return rows
    others = [axis for axis in range(rows.ndim) if axis != 1]
    mean, variance = rows.mean(others, keepdim=True), rows.var(others, correction=0, keepdim=True)
    unbiased = rows.var(others, correction=1)
    for kind, value in (("mean", mean.flatten()), ("var", unbiased)):
        running[f"{name}.running_{kind}"] = 0.9 * running[f"{name}.running_{kind}"] + 0.1 * value.detach()
    weight, bias = (p[f"{name}.{kind}"].view_as(mean) for kind in ("weight", "bias"))
    return (rows - mean) / (variance + 1e-5).sqrt() * weight + bias


def features(p, images, running):
    conv = "backbone.conv.0" if running else "backbone.conv"
    maps = F.conv2d(images, p[f"{conv}.weight"], p[f"{conv}.bias"])
    maps = F.gelu(normalised(p, running, "backbone.conv.1", maps))
    return maps.mean((2, 3)) @ p["backbone.linear.weight"].T + p["backbone.linear.bias"]


def mlp(p, name, rows, running):
    """Linear, batch norm if it has one, ReLU, Linear with the bias it has."""
    last = 3 if running else 2
    hidden = rows @ p[f"{name}.0.weight"].T + p[f"{name}.0.bias"]
    hidden = normalised(p, running, f"{name}.1", hidden).clamp(min=0)
    return hidden @ p[f"{name}.{last}.weight"].T + p.get(f"{name}.{last}.bias", 0)


def projection(p, images, running):
    return mlp(p, "head.projector", features(p, images, running), running)


def assert_same_statistics(model, seen, count):
    """Each network has the running statistics of its own images, moved ``count`` times; none for 0."""
    for branch, running in zip((model.student, model.teacher), seen, strict=True):
        assert bool(running) == bool(count)
        if running:
            assert relative_difference(preprocessing(branch), running) < 1e-11
        counters = [buffer.item() for name, buffer in branch.named_buffers() if name.endswith("num_batches_tracked")]
        assert {*counters} <= {count}


# BYOL: both directions added, online update, then the average of the new online parameters.


def byol(tiny, batch_norm=False):
    def network():
        backbone = normed(tiny.Backbone()) if batch_norm else tiny.Backbone()
        head = MLPHead(5, 16, 6, batch_norm=batch_norm, last_bias=False)
        return Branch(backbone, head, separate_views=batch_norm).double()

    student, other = network(), network()
    student.predictor = MLPPredictor(6, 16, batch_norm).double()
    slots = {"teacher_update": EMA(0.9), "collapse": None, "loss": MSE("sum")}
    return StudentTeacher(student, teacher=other, student_views="globals", **slots), LARS(trust=0.1)


def slow_byol(online, target, seen, batches, lr, decay):
    """``seen`` holds the running statistics of online and target network: each view passes by itself, in order."""
    sums = {name: torch.zeros_like(p) for name, p in online.items()}
    losses = []
    for views in batches:
        images, online = views.groups[0].images, learning(online)
        predictions = [mlp(online, "predictor.layers", projection(online, x, seen[0]), seen[0]) for x in images]
        projections = [projection(target, x, seen[1]) for x in images]
        one_way = (unit(predictions[0]) - unit(projections[1])).square().sum(-1)
        other_way = (unit(predictions[1]) - unit(projections[0])).square().sum(-1)
        loss = (one_way + other_way).mean()
        losses.append(loss.item())
        for name, g in gradients_of(loss, online).items():
            p = online[name].detach()
            if p.ndim > 1:
                g = g + decay * p
                g = g * (0.1 * p.norm() / g.norm())
            sums[name] = 0.9 * sums[name] + g
            online[name] = p - lr * sums[name]
        target = {name: 0.9 * p + 0.1 * online[name].detach() for name, p in target.items()}
    return online, target, losses


@pytest.mark.parametrize("batch_norm", [False, True])
def test_byol_is_the_published_loop(tiny, batch_norm):
    model, kind = byol(tiny, batch_norm)
    batches = [tiny.views(batch=5, num_local=0) for _ in range(3)]
    seen = [preprocessing(model.student), preprocessing(model.teacher)]
    online, target, losses = slow_byol(values(model.student), values(model.teacher), seen, batches, 0.3, 0.01)
    optimizer = optimizer_of(kind, model)
    set_rates(optimizer, 0.3, 0.01)
    assert [train_step(model, views, optimizer).loss.item() for views in batches] == pytest.approx(losses, rel=1e-11)
    assert relative_difference(values(model.student), online) < 1e-11
    assert relative_difference(values(model.teacher), target) < 1e-11
    assert "predictor.layers.0.weight" not in values(model.teacher)
    assert_same_statistics(model, seen, count=6 if batch_norm else 0)


# MoCo-v2: average first, then keys, logits against the queue, enqueue, gradient.


def moco(tiny, negatives="targets", batch_norm=False):
    backbone = normed(tiny.Backbone()) if batch_norm else tiny.Backbone()
    head = MLPHead(5, embed_dim=6, batch_norm=batch_norm)
    student = Branch(backbone, head, separate_views=batch_norm).double()
    collapse = None if negatives == "batch" else NegativeQueue(6, 8)
    slots = {"teacher_update": EMA(0.9), "collapse": collapse, "loss": InfoNCE(0.2, negatives)}
    return StudentTeacher(student, student_views=[0], teacher_views=[1], **slots), SGD()


def slow_moco(query, queue, seen, batches, lr, decay):
    """``seen`` holds the running statistics of query and key network, which follow their own images."""
    key, sums = query, {name: torch.zeros_like(p) for name, p in query.items()}
    losses, pointer = [], 0
    for views in batches:
        query = learning(query)
        q = unit(projection(query, views.groups[0].images[0], seen[0]))
        key = {name: 0.9 * p + 0.1 * query[name].detach() for name, p in key.items()}
        k = unit(projection(key, views.groups[0].images[1], seen[1]))
        logits = torch.cat([(q * k).sum(1, keepdim=True), q @ queue.T], 1) / 0.2
        queue = queue.clone()
        queue[pointer : pointer + len(k)] = k
        pointer = (pointer + len(k)) % len(queue)
        loss = F.cross_entropy(logits, torch.zeros(len(k), dtype=torch.long))
        losses.append(loss.item())
        for name, g in gradients_of(loss, query).items():
            p = query[name].detach()
            sums[name] = 0.9 * sums[name] + g + decay * p
            query[name] = p - lr * sums[name]
    key = {name: 0.9 * p + 0.1 * query[name].detach() for name, p in key.items()}
    return query, key, queue, losses


@pytest.mark.parametrize("batch_norm", [False, True])
def test_moco_is_the_published_loop(tiny, batch_norm):
    model, kind = moco(tiny, batch_norm=batch_norm)
    batches = [tiny.views(batch=4, num_local=0) for _ in range(4)]
    seen, queue = [preprocessing(model.student), preprocessing(model.teacher)], model.collapse.queue.double()
    query, key, queue, losses = slow_moco(values(model.student), queue, seen, batches, 0.3, 0.01)
    optimizer = optimizer_of(kind, model)
    set_rates(optimizer, 0.3, 0.01)
    assert [train_step(model, views, optimizer).loss.item() for views in batches] == pytest.approx(losses, rel=1e-11)
    assert relative_difference(values(model.student), query) < 1e-11
    assert relative_difference(values(model.teacher), key) < 1e-11
    assert relative_difference({"": model.collapse.queue}, {"": queue}) < 1e-11
    assert_same_statistics(model, seen, count=4 if batch_norm else 0)


# SwAV: prototypes scaled to 1, codes of the global views, each predicted from all other views; the queue as it was.


def swav(tiny):
    student = Branch(tiny.Backbone(), SwAVHead(5, num_prototypes=9, hidden_dim=7, embed_dim=6)).double()
    collapse = SinkhornKnopp(epsilon=0.25, queue_size=10, embed_dim=6, queue_start="1 epochs")
    return StudentTeacher(student, teacher_update=Copy(), collapse=collapse, loss=CrossEntropy()), LARC(trust=0.1)


def slow_codes(scores):
    weights = torch.exp(scores.detach() / 0.25).T
    weights = weights / weights.sum()
    for _ in range(3):
        weights = weights / weights.sum(1, keepdim=True) / weights.shape[0]
        weights = weights / weights.sum(0, keepdim=True) / weights.shape[1]
    return (weights * weights.shape[1]).T


def slow_swav_embedding(p, views):
    rows = torch.cat([features(p, group.images.flatten(0, 1), {}) for group in views.groups])
    hidden = rows @ p["head.projector.0.weight"].T + p["head.projector.0.bias"]
    hidden = (hidden - hidden.mean(0)) / (hidden.var(0, correction=0) + 1e-5).sqrt()
    hidden = (hidden * p["head.projector.1.weight"] + p["head.projector.1.bias"]).clamp(min=0)
    return unit(hidden @ p["head.projector.3.weight"].T + p["head.projector.3.bias"])


def slow_swav(p, batches, lr, decay, epoch, room):
    queue, used, losses = None, [], []
    sums = {name: torch.zeros_like(value) for name, value in p.items()}
    for step, views in enumerate(batches):
        size, crops = views.batch_size, len(views.view_ids)
        p = {**p, "head.prototypes.weight": unit(p["head.prototypes.weight"].detach())}
        p = learning(p)
        embedding = slow_swav_embedding(p, views)
        output = embedding @ p["head.prototypes.weight"].T
        if step == epoch:
            queue = torch.zeros(2, room, 6, dtype=DOUBLE)
        loss, used = 0, [*used, False]
        for crop in range(2):
            scores = output[crop * size : (crop + 1) * size]
            if queue is not None:
                if queue[crop, -1].abs().sum() > 0:
                    scores, used[-1] = torch.cat([queue[crop] @ p["head.prototypes.weight"].T, scores]), True
                queue[crop] = torch.cat([embedding[crop * size : (crop + 1) * size].detach(), queue[crop, :-size]])
            codes = slow_codes(scores)[-size:]
            others = [v for v in range(crops) if v != crop]
            terms = [-(codes * (output[v * size : (v + 1) * size] / 0.1).log_softmax(1)).sum(1).mean() for v in others]
            loss = loss + sum(terms) / len(terms) / 2
        losses.append(loss.item())
        for name, g in gradients_of(loss, p).items():
            value = p[name].detach()
            if name != "head.prototypes.weight" or step >= epoch:
                if value.norm() > 0 and g.norm() > 0:
                    rate = 0.1 * value.norm() / (g.norm() + decay * value.norm() + 1e-8)
                    g = (g + decay * value) * rate
                sums[name] = 0.9 * sums[name] + g
                value = value - lr * sums[name]
            p[name] = value
    return p, queue, losses, used


def test_swav_is_the_published_loop(tiny):
    """Batches of 4 with a queue of 10: 8 rows are used, it fills in steps 2 and 3, and serves from step 4 on."""
    model, kind = swav(tiny)
    batches = [tiny.views(batch=4, num_local=2) for _ in range(6)]
    expected, queue, losses, used = slow_swav(values(model.student), batches, 0.3, 0.01, epoch=2, room=8)
    optimizer = optimizer_of(kind, model)
    set_rates(optimizer, 0.3, 0.01)
    ours = []
    for step, views in enumerate(batches):
        frozen = ["prototypes"] if step < 2 else []
        ours.append(train_step(model, views, optimizer, Clock(step, 6, 2), frozen=frozen).loss.item())
    assert used == [False] * 4 + [True] * 2
    assert ours == pytest.approx(losses, rel=1e-11)
    effective = [name for name in expected if name not in WITHOUT_EFFECT]
    mine = values(model.student)
    assert relative_difference({n: mine[n] for n in effective}, {n: expected[n] for n in effective}) < 1e-11
    assert relative_difference({"": model.collapse.queue.rows[:, :8]}, {"": queue}) < 1e-11


# All four.


def dino(tiny):
    student = Branch(tiny.Backbone(), DINOHead(5, 11, hidden_dim=7, embed_dim=6)).double()
    return StudentTeacher(student, teacher_update=EMA(0.9), collapse=Centering(11), loss=CrossEntropy()), AdamW()


METHODS = {"dino": dino, "byol": byol, "moco": moco, "swav": swav}


def run(tiny, method, accumulation, num_local=0):
    torch.manual_seed(2)
    model, kind = METHODS[method](tiny)
    optimizer = optimizer_of(kind, model)
    set_rates(optimizer, 0.01, 0.01)
    losses = []
    for step in range(3):
        views = tiny.views(batch=5, num_local=num_local)
        losses.append(train_step(model, views, optimizer, Clock(step, 3, 2), accumulation=accumulation).loss)
    return model, losses


@pytest.mark.parametrize("num_local", [0, 2])
@pytest.mark.parametrize("method", METHODS)
def test_three_steps_move_everything_that_learns(tiny, method, num_local):
    torch.manual_seed(2)
    before = values(METHODS[method](tiny)[0].student)
    model, losses = run(tiny, method, 1, num_local)
    assert torch.stack(losses).isfinite().all()
    for name, parameter in model.student.named_parameters():
        assert parameter.requires_grad == (parameter.grad is not None)
        assert torch.equal(parameter, before[name]) != parameter.requires_grad


@pytest.mark.parametrize("method", ["dino", "byol", "moco"])
def test_micro_batches_change_nothing(tiny, method):
    (once, whole), (again, parts) = run(tiny, method, 1), run(tiny, method, 3)
    torch.testing.assert_close(torch.stack(parts), torch.stack(whole), rtol=1e-11, atol=0)
    assert relative_difference(values(again.student), values(once.student)) < 1e-11
    assert relative_difference(values(again.teacher), values(once.teacher)) < 1e-11
    if once.collapse is not None:
        for name, state in once.collapse.state_dict().items():
            torch.testing.assert_close(again.collapse.state_dict()[name], state, rtol=1e-11, atol=1e-14)


def test_micro_batches_of_swav_change_batch_statistics_alone(tiny):
    """The codes of the first step are those of the whole batch."""
    outputs = []
    for accumulation in (1, 2):
        torch.manual_seed(2)
        model, kind = swav(tiny)
        outputs.append(train_step(model, tiny.views(num_local=0), optimizer_of(kind, model), accumulation=accumulation))
    torch.testing.assert_close(outputs[1].targets.values, outputs[0].targets.values, rtol=1e-11, atol=0)


@pytest.mark.parametrize("negatives", ["batch", "both"])
def test_in_batch_negatives_refuse_micro_batches(tiny, negatives):
    model, kind = moco(tiny, negatives)
    with pytest.raises(RecipeError, match="InfoNCE compares the images of a batch"):
        train_step(model, tiny.views(), optimizer_of(kind, model), accumulation=2)
    assert train_step(model, tiny.views(), optimizer_of(kind, model)).loss.isfinite()


def test_negatives_from_the_batch_need_no_queue(tiny):
    head = MLPHead(5, embed_dim=6)
    StudentTeacher(Branch(tiny.Backbone(), head), teacher_update=EMA(), collapse=None, loss=InfoNCE(negatives="batch"))
    with pytest.raises(RecipeError, match="InfoNCE needs negatives"):
        StudentTeacher(Branch(tiny.Backbone(), head), teacher_update=EMA(), collapse=None, loss=InfoNCE())
