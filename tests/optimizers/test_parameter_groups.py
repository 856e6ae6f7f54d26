"""Which parameters are decayed, and at which rate they learn."""

import torch
from optimized import Odd
from torch import nn

from sslkit.optimizers.adamw import AdamW
from sslkit.optimizers.parameter_groups import parameter_groups, set_rates


def names(module, group):
    by_id = {id(parameter): name for name, parameter in module.named_parameters()}
    return {by_id[id(parameter)] for parameter in group["params"]}


def test_biases_and_vectors_are_not_decayed_but_position_embeddings_and_class_tokens_are():
    module = Odd()
    decayed, others = parameter_groups(module)
    assert (decayed["decay"], others["decay"]) == (True, False)
    assert names(module, decayed) == {"linear.weight", "pos_embed", "cls_token"}
    assert names(module, others) == {"linear.bias", "norm.weight", "norm.bias", "scale", "table.bias"}


def test_decaying_vectors_leaves_one_group_of_all_that_learns():
    module = Odd()
    (group,) = parameter_groups(module, decays_vectors=True)
    assert group["decay"]
    assert names(module, group) == {name for name, _ in module.named_parameters()} - {"frozen"}


def test_rates_are_set_where_they_act():
    optimizer = AdamW().build(parameter_groups(Odd()))
    set_rates(optimizer, 0.02, 0.3)
    assert [(group["lr"], group["weight_decay"]) for group in optimizer.param_groups] == [(0.02, 0.3), (0.02, 0.0)]


def test_groups_of_ones_own_are_decayed():
    optimizer = torch.optim.SGD([{"params": [nn.Parameter(torch.ones(2))]}], lr=1.0)
    set_rates(optimizer, 0.5, 0.1)
    assert (optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["weight_decay"]) == (0.5, 0.1)


def test_parts_have_groups_of_their_own_and_their_share_of_the_rate():
    module = Odd()
    scales = {module.linear: 0.1, module.norm: 0.1, module.table: 3.0}
    optimizer = torch.optim.SGD(parameter_groups(module, lr_scales=scales), lr=1.0)
    set_rates(optimizer, 0.5, 0.2)
    groups = [(group["lr"], group["weight_decay"], names(module, group)) for group in optimizer.param_groups]
    assert groups == [
        (0.5, 0.2, {"pos_embed", "cls_token"}),
        (0.5, 0.0, {"scale"}),
        (0.05, 0.2, {"linear.weight"}),
        (0.05, 0.0, {"linear.bias", "norm.weight", "norm.bias"}),
        (1.5, 0.0, {"table.bias"}),
    ]
