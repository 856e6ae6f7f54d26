"""LARC rescales a learning rate by norms."""

import pytest
import torch
from torch import nn

from sslkit.optimizers.larc import LARC
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates


def built(optimizer, net):
    return optimizer.build(parameter_groups(net, optimizer.decays_vectors))


def one_step(optimizer, parameter, gradient, name, decay=0.5):
    parameter = nn.Parameter(torch.tensor(parameter, dtype=torch.float64))
    module = nn.Module()
    module.register_parameter(name, parameter)
    optimizer = built(optimizer, module)
    set_rates(optimizer, 2.0, decay)
    for _ in range(2):
        parameter.grad = torch.tensor(gradient, dtype=torch.float64)
        optimizer.step()
        yield parameter.tolist()


def approx(numbers):
    return pytest.approx(numbers, rel=1e-12)


def test_larc_by_hand():
    # Lengths 5 and 2: rate 0.1 * 5 / (2 + 0.5 * 5 + 0) = 1 / 9 on (2 + 1.5, 0 + 2).
    first, _ = one_step(LARC(0.5, 0.1, eps=0.0), [[3.0, 4.0]], [[2.0, 0.0]], "weight")
    assert first[0] == approx([3.0 - 2.0 * 3.5 / 9, 4.0 - 2.0 * 2.0 / 9])
    # The same for a bias, and eps counts.
    first, _ = one_step(LARC(0.5, 0.1, eps=0.5), [3.0, 4.0], [2.0, 0.0], "bias")
    assert first == approx([3.0 - 2.0 * 3.5 / 10, 4.0 - 2.0 * 2.0 / 10])
    # Without a length there is no rate: the plain gradient, and a gradient of 0 moves nothing.
    assert next(one_step(LARC(), [[0.0, 0.0]], [[2.0, 1.0]], "weight"))[0] == approx([-4.0, -2.0])
    assert [p[0] for p in one_step(LARC(), [[3.0, 4.0]], [[0.0, 0.0]], "weight")] == [[3.0, 4.0]] * 2
