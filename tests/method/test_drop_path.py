"""Drop path by an image's place: however the batch is shared out, each image loses the same paths."""

from contextlib import nullcontext
from types import SimpleNamespace

import pytest
import timm
import torch
from timm.layers import DropPath
from torch import nn

from sslkit.collapse import Centering
from sslkit.device import COMPILE_OPTIONS
from sslkit.losses import CrossEntropy
from sslkit.method import drop_path
from sslkit.method.branch import Branch
from sslkit.method.drop_path import BatchInvariantDropPath, DropPathSeeding, seed_step
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.teachers import Copy
from sslkit.training.accelerated import AccelerateExecutor

CPU = torch.device("cpu")
ONE_PROCESS = SimpleNamespace(
    num_processes=1,
    scaler=None,
    autocast=nullcontext,
    no_sync=lambda wrapped: nullcontext(),
    backward=lambda loss: loss.backward(),
    unscale_gradients=lambda optimizer: None,
)


def network(rate=0.5, **options):
    torch.manual_seed(0)
    return timm.create_model("test_vit", img_size=32, num_classes=0, drop_path_rate=rate, **options).double().train()


def seen(draws, net, images, share, step=3):
    """What a network says of views (V, B, ...) of some images, a view of one resolution after the other."""
    start, stop = share
    draws.start_step(5, step)
    draws.set_batch_slice(start, stop, images.shape[1], CPU)
    parts = [net(group[:, start:stop].flatten(0, 1)).unflatten(0, (len(group), -1)) for group in images.split([2, 1])]
    return torch.cat(parts)


@pytest.fixture
def images():
    return torch.randn(3, 7, 3, 32, 32, dtype=torch.float64)


def test_micro_batches_draw_what_the_whole_batch_draws(images):
    net = network()
    draws = DropPathSeeding(net)
    whole = seen(draws, net, images, (0, 7))
    joined = torch.cat([seen(draws, net, images, share) for share in ((0, 2), (2, 3), (3, 7))], 1)
    torch.testing.assert_close(joined, whole, rtol=1e-11, atol=1e-11)
    assert not torch.allclose(seen(draws, net, images, (0, 7), step=4), whole)


def test_processes_draw_what_one_draws(images, monkeypatch):
    net = network()
    draws = DropPathSeeding(net)
    whole = seen(draws, net, images[:, :6], (0, 6))
    monkeypatch.setattr(drop_path, "world_size", lambda: 3)
    for rank in range(3):
        monkeypatch.setattr(drop_path, "rank", lambda rank=rank: rank)
        mine = slice(2 * rank, 2 * rank + 2)
        part = seen(draws, net, images[:, mine], (0, 2))
        torch.testing.assert_close(part, whole[:, mine], rtol=1e-11, atol=1e-11)


def test_alone_it_draws_as_timm_does(images):
    plain, net = network(), network()
    draws = DropPathSeeding(net)
    seed_step(5, 3, 0)
    expected = torch.cat([plain(images[:2].flatten(0, 1)), plain(images[2])])
    assert torch.equal(seen(draws, net, images, (0, 7)).flatten(0, 1), expected)
    assert sum(isinstance(layer, BatchInvariantDropPath) for layer in net.modules()) == 10
    assert not torch.equal(network(0.0)(images[2]), expected[-7:])


def test_a_layer_used_twice_draws_twice():
    layer = nn.Sequential(DropPath(0.5))
    draws = DropPathSeeding(layer)
    draws.start_step(0, 0)
    draws.set_batch_slice(0, 64, 64, CPU)
    assert not torch.equal(layer(torch.ones(64, 1)), layer(torch.ones(64, 1)))


def test_recomputed_activations_lose_the_same_paths(images):
    plain, net = network(), network()
    net.set_grad_checkpointing()
    gradients = []
    for each in (plain, net):
        seen(DropPathSeeding(each), each, images, (0, 7)).square().sum().backward()
        gradients.append([parameter.grad for parameter in each.parameters()])
    torch.testing.assert_close(*gradients, rtol=1e-11, atol=1e-11)


@pytest.mark.long
def test_compiled_it_loses_the_same_paths_and_is_one_graph(images, monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    plain, net = network().float(), network().float()
    expected = seen(DropPathSeeding(plain), plain, images.float(), (0, 6))
    draws = DropPathSeeding(net)
    compiled = torch.compile(net, fullgraph=True, options=COMPILE_OPTIONS)
    first = seen(draws, compiled, images.float(), (0, 3))
    # Not monkeypatch, whose way of putting an attribute back leaves torch's configuration without it.
    with torch._dynamo.config.patch(error_on_recompile=True):
        both = torch.cat([first, seen(draws, compiled, images.float(), (3, 6))], 1)
    torch.testing.assert_close(both, expected, rtol=1e-4, atol=1e-4)


def test_a_network_with_dropout_draws_by_micro_batch(images, monkeypatch):
    """Were it seeded alike everywhere, images of different micro-batches and processes would lose the same units."""
    net = network(proj_drop_rate=0.5)
    draws = DropPathSeeding(net)
    assert not draws.is_batch_invariant
    assert not any(isinstance(layer, BatchInvariantDropPath) for layer in net.modules())
    same = images[:, :1].expand(-1, 7, -1, -1, -1)
    first = seen(draws, net, same, (0, 3))
    assert torch.equal(seen(draws, net, same, (0, 3)), first)
    assert not torch.allclose(seen(draws, net, same, (3, 6)), first)
    monkeypatch.setattr(drop_path, "rank", lambda: 1)
    assert not torch.allclose(seen(draws, net, same, (0, 3)), first)


def test_outside_steps_layers_draw_as_timm_does(images):
    plain, net = network(), network()
    draws = DropPathSeeding(net)
    # Nobody has said which images; then, other images than were said.
    for _ in range(2):
        found = []
        for each in (plain, net):
            torch.manual_seed(1)
            found.append(each(images[0]))
        assert torch.equal(*found)
        draws.set_batch_slice(0, 4, 4, CPU)
    assert torch.equal(net.eval()(images[0]), plain.eval()(images[0]))


@pytest.mark.parametrize("separate_views", [False, True])
@pytest.mark.parametrize("teacher_views", ["globals", [1]])
def test_a_student_that_is_its_own_teacher_loses_the_same_paths_in_both(tiny, teacher_views, separate_views):
    """Alone, one forward serves for both; micro-batches need two."""
    ends = []
    for accumulation in (1, 3):
        torch.manual_seed(0)
        plain = tiny.branch()
        plain.backbone.drop = DropPath(0.5)
        student = Branch(plain.backbone, plain.head, separate_views=separate_views)
        parts = {"teacher_update": Copy(), "collapse": Centering(11), "loss": CrossEntropy()}
        model = StudentTeacher(student, **parts, teacher_views=teacher_views)
        optimizer = torch.optim.SGD(student.parameters(), lr=0.1)
        executor = AccelerateExecutor(ONE_PROCESS)
        executor.prepare(student, student)
        for step in range(2):
            executor.start_step(0, step)
            train_step(model, tiny.views(batch=7), optimizer, accumulation=accumulation, executor=executor)
        ends.append(model.state_dict())
    torch.testing.assert_close(*ends, rtol=1e-11, atol=1e-13)


def test_the_seed_of_a_step_depends_on_seed_step_and_rank_alone():
    def draw(seed, step, rank):
        torch.rand(3)
        seed_step(seed, step, rank)
        return float(torch.rand(()))

    assert draw(1, 2, 3) == draw(1, 2, 3)
    batch_positions = [(seed, step, rank) for seed in range(3) for step in range(20) for rank in range(3)]
    # "1/11/2" and "11/1/2" are two places.
    assert len({draw(*place) for place in [*batch_positions, (11, 1, 2)]}) == len(batch_positions) + 1
