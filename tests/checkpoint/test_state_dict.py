"""A state is flattened to tensors and plain data, and comes back."""

import json

import pytest
import torch

from sslkit.checkpoint.state_dict import flatten, mismatched_names, unflatten


@pytest.fixture
def state():
    torch.manual_seed(0)
    return {
        "model": {"student.a": torch.randn(2, 3), "student.b": torch.randn(4)},
        "optimizer": {
            "state": {
                0: {"exp_avg": torch.randn(2, 3), "step": torch.tensor(3.0)},
                1: {"moment.um": torch.randn(4), "calls": 7, "rate": 0.5},
            },
            "param_groups": [{"lr": 0.1, "params": [0, 1]}],
        },
        "parameters": ["student.a", "student.b"],
        "executor": {"scale": 2.0},
    }


def test_there_and_back(state):
    tensors, numbers = flatten(state)
    assert {*tensors} == {
        "model.student.a",
        "model.student.b",
        "optimizer.0.exp_avg",
        "optimizer.0.step",
        "optimizer.1.moment.um",
    }
    assert json.loads(json.dumps(numbers)) == {"1": {"calls": 7, "rate": 0.5}}
    again = unflatten(tensors, numbers, {**state, "model": {}, "optimizer": {**state["optimizer"], "state": {}}})
    assert again["optimizer"]["param_groups"] is state["optimizer"]["param_groups"]
    assert again["optimizer"]["state"][1].keys() == state["optimizer"]["state"][1].keys()
    for name, tensor in state["model"].items():
        assert again["model"][name] is tensor
    assert again["optimizer"]["state"][0]["step"] is state["optimizer"]["state"][0]["step"]


def test_what_fits_has_no_mismatch_and_moments_may_be_missing(state):
    tensors, numbers = flatten(state)
    assert mismatched_names(tensors, numbers, state) == []
    assert mismatched_names({k: v for k, v in tensors.items() if "optimizer" not in k}, {}, state) == []


def test_what_does_not_fit_is_named(state):
    tensors, numbers = flatten(state)
    del tensors["model.student.a"]
    tensors |= {
        "model.student.b": torch.zeros(5),
        "model.student.c": torch.zeros(1),
        "else": torch.zeros(1),
        "optimizer.2.exp_avg": torch.zeros(1),
    }
    assert mismatched_names(tensors, {**numbers, "x": {}}, state) == [
        "else",
        "model.student.a",
        "model.student.b",
        "model.student.c",
        "optimizer.2.exp_avg",
        "optimizer.x",
    ]
