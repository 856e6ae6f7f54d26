"""Gradients are clipped a tensor at a time or all together."""

import math

import pytest
import torch
from torch import nn

from sslkit.errors import RecipeError, UnknownName
from sslkit.method.gradients import Clip


def gradients(*norms):
    parameters = [nn.Parameter(torch.zeros(3, 2, dtype=torch.float64)) for _ in norms]
    for parameter, norm in zip(parameters, norms, strict=True):
        direction = torch.randn(3, 2, dtype=torch.float64)
        parameter.grad = direction / direction.norm() * norm
    return parameters


def test_clip_bounds_each_tensor_by_itself():
    parameters = gradients(0.5, 3.0, 12.0)
    before = [parameter.grad.clone() for parameter in parameters]
    Clip(3.0)([*parameters, nn.Parameter(torch.zeros(2))])
    for parameter, old, norm in zip(parameters, before, (0.5, 3.0, 12.0), strict=True):
        coefficient = min(1.0, 3.0 / (norm + 1e-6))
        torch.testing.assert_close(parameter.grad, old * coefficient, rtol=1e-13, atol=0)


def test_clip_bounds_all_together_as_torch_does():
    parameters = gradients(3.0, 4.0)
    twins = [nn.Parameter(torch.zeros_like(parameter)) for parameter in parameters]
    for twin, parameter in zip(twins, parameters, strict=True):
        twin.grad = parameter.grad.clone()
    Clip(2.0, per="all")(parameters)
    nn.utils.clip_grad_norm_(twins, 2.0)
    for twin, parameter in zip(twins, parameters, strict=True):
        torch.testing.assert_close(parameter.grad, twin.grad, rtol=1e-13, atol=0)
    assert math.hypot(*(float(parameter.grad.norm()) for parameter in parameters)) == pytest.approx(2.0, rel=1e-6)


@pytest.mark.parametrize("norm", [-1, 0, float("nan")])
def test_a_bound_that_is_no_norm_is_refused(norm):
    with pytest.raises(RecipeError, match=f"norm of Clip is above 0, not {norm}"):
        Clip(norm)


def test_another_way_to_clip_is_refused():
    with pytest.raises(UnknownName, match=r"unknown per of Clip 'global'\. Choices: all, parameter"):
        Clip(1.0, per="global")


def test_clip_without_gradients_does_nothing():
    parameter = nn.Parameter(torch.zeros(2))
    Clip(1.0)([parameter])
    assert parameter.grad is None
