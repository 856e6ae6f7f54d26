"""A recipe's optimizer decays what its optimizer says, and learns each part at its rate."""

import pytest

from sslkit.optimizers.adamw import AdamW
from sslkit.optimizers.larc import LARC
from sslkit.optimizers.lars import LARS
from sslkit.optimizers.parameter_groups import set_rates
from sslkit.optimizers.sgd import SGD
from sslkit.recipe.model import build_optimizer
from sslkit.recipe.sections import Optimization

MATRICES = {"backbone.conv.weight", "backbone.linear.weight", "head.projector.0.weight", "head.projector.3.weight"}
MATRICES |= {"head.prototypes.weight"}
VECTORS = {"backbone.conv.bias", "backbone.linear.bias", "head.projector.0.bias", "head.projector.3.bias"}
VECTORS |= {"head.projector.1.weight", "head.projector.1.bias"}


@pytest.mark.parametrize(
    ("optimizer", "decayed"),
    [
        (AdamW(), MATRICES),
        (SGD(), MATRICES | VECTORS),
        (SGD(decays_vectors=False), MATRICES),
        (LARS(), MATRICES),
        (LARC(), MATRICES | VECTORS),
    ],
)
@pytest.mark.parametrize("lr_scale", [{}, {"backbone": 0.1, "predictor": 0.5, "prototypes": None}])
def test_a_recipes_optimizer_decays_what_it_should_at_each_parts_rate(optimizer, decayed, lr_scale, tiny):
    student = tiny.branch(batch_norm=True)
    plan = Optimization(optimizer, batch_size=4, epochs=1, lr=0.5, weight_decay=0.25, lr_scale=lr_scale)
    built = build_optimizer(plan, student)
    set_rates(built, 0.5, 0.25)
    rates = {p: (group["lr"], group["weight_decay"]) for group in built.param_groups for p in group["params"]}
    named = dict(student.named_parameters())
    assert {*named} == MATRICES | VECTORS
    for name, parameter in named.items():
        slow = 0.1 if lr_scale and name.startswith("backbone.") else 1
        assert rates.pop(parameter) == (0.5 * slow, 0.25 if name in decayed else 0), name
    assert not rates
