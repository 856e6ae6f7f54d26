"""Parts of a step that no method has, and what a step leaves."""

import math

import torch

from sslkit.contracts import CollapseOperator, Loss
from sslkit.optimizers.adamw import AdamW
from sslkit.optimizers.parameter_groups import parameter_groups
from sslkit.types import Targets, matching_pairs


def adamw(model):
    return AdamW().build(parameter_groups(model.student))


def values(module):
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}


def relative_difference(ours, theirs):
    """Norm of the difference over the norm, over all tensors of two dicts together."""
    assert ours.keys() == theirs.keys()
    difference = sum((ours[name] - theirs[name]).square().sum() for name in ours)
    return math.sqrt(difference / sum(theirs[name].square().sum() for name in theirs))


class Regression(Loss):
    """Squared distance of embeddings, over pairs of different views."""

    accepts = frozenset({"embedding"})

    def forward(self, student, targets):
        pairs = matching_pairs(targets.view_ids, student.view_ids)
        return sum((student.embedding[s] - targets.values[t]).square().sum(-1).mean() for t, s in pairs) / len(pairs)


class Rotate(CollapseOperator):
    """Targets are the teacher's embeddings, turned by as many places as there were steps; counts them."""

    reads = "embedding"
    yields = "embedding"

    def __init__(self):
        super().__init__()
        self.register_buffer("turns", torch.zeros((), dtype=torch.long))

    def forward(self, teacher, clock=None):
        return Targets(teacher.embedding.roll(int(self.turns), -1), "embedding", teacher.view_ids)

    def update(self, teacher, clock=None):
        self.turns += 1


class Correlation(Loss):
    accepts = frozenset({"embedding"})

    def forward(self, student, targets):
        pairs = matching_pairs(targets.view_ids, student.view_ids)
        return -sum((student.embedding[s] * targets.values[t]).sum(-1).mean() for t, s in pairs) / len(pairs)
