"""SGD, LARS and LARC against slow versions, and what they share."""

import copy
import math

import pytest
import torch
from optimized import built
from torch import nn

from sslkit.optimizers.larc import LARC
from sslkit.optimizers.lars import LARS
from sslkit.optimizers.parameter_groups import set_rates
from sslkit.optimizers.sgd import SGD

STEPS = 5


class Net(nn.Module):
    """A matrix, a bias, a matrix that starts at 0, one without gradient, one whose gradient is 0, one frozen."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)
        self.zero = nn.Parameter(torch.zeros(2, 3))
        self.unused = nn.Parameter(torch.randn(2, 2))
        self.still = nn.Parameter(torch.randn(3, 2))
        self.frozen = nn.Parameter(torch.randn(2, 2), requires_grad=False)


def norm(tensor):
    return math.sqrt(sum(x * x for x in tensor.flatten().tolist()))


def slow_sgd(p, g, lr, decay, is_vector):
    return g + decay * p


def slow_lars(p, g, lr, decay, is_vector):
    if is_vector:
        return g
    update = g + decay * p
    return update * (1e-3 * norm(p) / norm(update)) if norm(p) > 0 and norm(update) > 0 else update


def slow_larc(p, g, lr, decay, is_vector):
    if norm(p) == 0 or norm(g) == 0:
        return g
    return (g + decay * p) * (1e-3 * norm(p) / (norm(g) + decay * norm(p) + 1e-8))


OPTIMIZERS = {"sgd": (SGD, slow_sgd), "lars": (LARS, slow_lars), "larc": (LARC, slow_larc)}


def gradients(net, step):
    """Set gradients; ``unused`` has one from the third step on, as a part that is frozen at first."""
    for name, parameter in net.named_parameters():
        present = parameter.requires_grad and (name != "unused" or step >= 2)
        parameter.grad = torch.randn_like(parameter) if present else None
    net.still.grad.zero_()


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-11), (torch.float32, 1e-6)])
def test_five_steps(name, dtype, tolerance):
    kind, slow_update = OPTIMIZERS[name]
    net = Net().to(dtype)
    optimizer = built(kind(momentum=0.8), net)
    slow = {key: p.detach().double() for key, p in net.named_parameters()}
    sums = {key: torch.zeros_like(p) for key, p in slow.items()}
    start = {key: p.clone() for key, p in slow.items()}
    for step in range(STEPS):
        lr, decay = 3.0 / (step + 1), 0.1 * (step + 1)
        set_rates(optimizer, lr, decay)
        gradients(net, step)
        for key, p in net.named_parameters():
            if p.grad is not None:
                update = slow_update(slow[key], p.grad.double(), lr, decay, key == "linear.bias")
                sums[key] = 0.8 * sums[key] + update
                slow[key] = slow[key] - lr * sums[key]
        optimizer.step()
        if step == 1:
            assert torch.equal(net.unused.detach().double(), start["unused"])
            assert net.unused not in optimizer.state
    for key, p in net.named_parameters():
        assert (p.double() - slow[key]).norm() <= tolerance * slow[key].norm()
    assert torch.equal(net.frozen.double(), start["frozen"])
    assert not torch.equal(net.unused.double(), start["unused"])
    assert not torch.equal(net.zero.double(), start["zero"])


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_run_goes_on_from_its_state(name):
    kind = OPTIMIZERS[name][0]
    torch.manual_seed(1)
    net = Net()
    optimizer = built(kind(), net)
    drawn = []
    for step in range(4):
        if step == 2:
            twin = Net()
            twin.load_state_dict(net.state_dict())
            resumed = built(kind(), twin)
            resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
        set_rates(optimizer, 0.5, 0.1)
        gradients(net, step)
        drawn.append([p.grad for p in net.parameters()])
        optimizer.step()
    for grads in drawn[2:]:
        set_rates(resumed, 0.5, 0.1)
        for parameter, gradient in zip(twin.parameters(), grads, strict=True):
            parameter.grad = gradient
        resumed.step()
    for mine, theirs in zip(twin.parameters(), net.parameters(), strict=True):
        assert torch.equal(mine, theirs)


def test_the_state_is_in_the_checkpoint_as_tensors():
    net = Net()
    optimizer = built(LARS(), net)
    gradients(net, 0)
    optimizer.step()
    states = optimizer.state_dict()["state"].values()
    assert len(states) == 4
    assert all(set(state) == {"momentum_buffer"} for state in states)


def test_a_gradient_is_left_as_it_was():
    net = Net()
    optimizer = built(LARC(), net)
    gradients(net, 0)
    before = net.linear.weight.grad.clone()
    set_rates(optimizer, 1.0, 0.3)
    optimizer.step()
    assert torch.equal(net.linear.weight.grad, before)
    assert optimizer.param_groups[0]["weight_decay"] == 0.3


def test_who_decays_vectors():
    assert SGD().decays_vectors
    assert LARC().decays_vectors
    assert not LARS().decays_vectors
    assert not SGD(decays_vectors=False).decays_vectors


@pytest.mark.parametrize("kind", [SGD, LARS, LARC])
def test_numbers_out_of_range_are_refused(kind):
    with pytest.raises(ValueError, match=rf"momentum of {kind.__name__} lies in \[0, 1\), not 1"):
        kind(momentum=1)
    if kind is not SGD:
        with pytest.raises(ValueError, match=rf"trust of {kind.__name__} lies in \(0, inf\), not 0"):
            kind(trust=0)


def test_a_copied_optimizer_still_rescales():
    net = Net()
    net, optimizer = copy.deepcopy((net, built(LARS(), net)))
    before = net.linear.weight.detach().clone()
    gradients(net, 0)
    optimizer.step()
    assert not torch.equal(net.linear.weight, before)
