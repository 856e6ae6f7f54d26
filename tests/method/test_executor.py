"""What a step asks of its executor, so that one which shards networks need change nothing else."""

import pytest
import torch

from sslkit.clock import Clock
from sslkit.collapse import Centering
from sslkit.losses import CrossEntropy
from sslkit.method.executor import Executor
from sslkit.method.gradients import Clip
from sslkit.method.step import train_step
from sslkit.method.student_teacher import StudentTeacher
from sslkit.teachers import EMA, Copy


def make(tiny, rule=EMA, **options):
    return StudentTeacher(tiny.branch(**options), teacher_update=rule(), collapse=Centering(11), loss=CrossEntropy())


class HalfShards(Executor):
    """Gradients that are the second half of whole ones: their norms are those of the whole, as over two shards."""

    factor = 2.0

    def gradient_norms(self, gradients):
        return [self.factor * norm for norm in super().gradient_norms(gradients)]


def test_norms_are_those_of_each_gradient():
    torch.manual_seed(0)
    gradients = [torch.randn(shape) for shape in [(3,), (2, 5), (), (1, 1, 7)]]
    norms = Executor().gradient_norms(gradients)
    for gradient, norm in zip(gradients, norms, strict=True):
        assert norm.shape == ()
        assert norm.item() == pytest.approx(sum(x * x for x in gradient.flatten().tolist()) ** 0.5)
    assert Executor().gradient_norms([]) == []


@pytest.mark.parametrize("per", ["parameter", "all"])
def test_clipping_asks_the_executor_for_norms(tiny, per):
    torch.manual_seed(0)
    ends = []
    for executor, bound in ((Executor(), 0.01), (HalfShards(), 0.02)):
        torch.manual_seed(1)
        model = make(tiny)
        optimizer = torch.optim.SGD(model.student.parameters(), lr=1.0)
        train_step(model, tiny.views(), optimizer, clip=Clip(bound, per), executor=executor)
        ends.append(torch.cat([p.grad.flatten() for p in model.student.parameters()]))
    assert ends[0].norm() > 0
    torch.testing.assert_close(ends[0], ends[1], rtol=1e-3, atol=1e-9)


def test_the_guard_asks_the_executor_for_norms(tiny):
    class Overflowing(HalfShards):
        factor = float("inf")

    model = make(tiny)
    before = [parameter.clone() for parameter in model.parameters()]
    optimizer = torch.optim.SGD(model.student.parameters(), lr=1.0)
    output = train_step(model, tiny.views(), optimizer, executor=Overflowing())
    assert output.flags.tolist() == [0, 0, 1]
    assert all(torch.equal(parameter, old) for parameter, old in zip(model.parameters(), before, strict=True))


@pytest.mark.parametrize("rule", [EMA, Copy])
def test_a_state_holds_each_tensor_once_and_is_restored(tiny, rule):
    torch.manual_seed(0)
    model, executor = make(tiny, rule, dtype=torch.float32), Executor()
    optimizer = torch.optim.SGD(model.student.parameters(), lr=0.1, momentum=0.9)
    train_step(model, tiny.views(dtype=torch.float32), optimizer, Clock(0, 4, 2))
    state = executor.state_dict(model, optimizer)
    addresses = [tensor.data_ptr() for tensor in state["model"].values() if tensor.numel()]
    assert len(addresses) == len(set(addresses))
    assert any(name.startswith("teacher.") for name in state["model"]) == (rule is EMA)
    names = dict(model.named_parameters())
    assert [names[name] for name in state["parameters"]] == list(model.student.parameters())

    torch.manual_seed(1)
    other = make(tiny, rule, dtype=torch.float32)
    of_other = torch.optim.SGD(other.student.parameters(), lr=0.1, momentum=0.9)
    executor.load(other, of_other, state)
    views = tiny.views(dtype=torch.float32)
    for each, its in ((model, optimizer), (other, of_other)):
        train_step(each, views, its, Clock(1, 4, 2))
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, other.state_dict()[name]), name


def test_moments_take_the_strides_of_their_parameters(tiny):
    """Fused optimizers walk both as flat memory, and files hold moments contiguous."""
    torch.manual_seed(0)
    layer = torch.nn.Conv2d(3, 5, 3).to(memory_format=torch.channels_last)
    model = make(tiny)
    model.student.backbone.layer = layer
    optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1)
    layer(torch.randn(2, 3, 8, 8)).square().mean().backward()
    optimizer.step()
    state = Executor().state_dict(model, optimizer)
    for values in state["optimizer"]["state"].values():
        values["exp_avg"] = values["exp_avg"].contiguous()
    Executor().load(model, optimizer, state)
    moments = optimizer.state[layer.weight]
    assert moments["exp_avg"].stride() == layer.weight.stride()
    assert torch.equal(moments["exp_avg"], state["optimizer"]["state"][0]["exp_avg"])
