"""DINO's head: forward, backward and first weights (vision_transformer.DINOHead)."""

import re

import pytest
import torch

from sslkit.heads.dino_head import DINOHead
from sslkit.method.branch import Branch

TRACE = "b_dino_head"
CASES = {
    "default": {},
    "no_norm_last": {"freeze_prototype_norm": False},
    "bn": {"batch_norm": True},
    "one_layer": {"num_layers": 1},
}


def their_name(name, num_layers=3):
    """Return the reference's name of one of ours; its head of one layer is no sequence."""
    name = name.replace("prototypes.", "last_layer.")
    return name.replace("projector.0." if num_layers == 1 else "projector.", "mlp.")


def head(case, **sizes):
    return DINOHead(**{"in_dim": 24, "num_prototypes": 40, "hidden_dim": 32, "embed_dim": 16, **sizes}, **CASES[case])


@pytest.mark.parametrize("case", CASES)
def test_forward_and_backward(case, trace, agrees, given):
    recorded = trace(TRACE)
    ours = head(case)
    names = {name: their_name(name, ours.num_layers) for name in ours.state_dict()}
    given.load_by(ours, names, recorded.below(f"{case}/sd/"))
    assert {*names.values()} == {*recorded.json["cases"][case]["state_dict_keys"]}

    x = recorded[f"{case}/x"].requires_grad_()
    logits = Branch(given.Backbone(24), ours)(given.views_of(x, num_globals=1)).logits[0]
    (logits * recorded[f"{case}/dy"]).sum().backward()
    agrees(TRACE, "logits", logits, recorded[f"{case}/y"], 1e-6)
    agrees(TRACE, "gradient of the features", x.grad, recorded[f"{case}/dx"], 1e-6)
    found = {names[name]: grad for name, grad in given.gradients(ours).items()}
    theirs = recorded.below(f"{case}/grad/")
    assert found.keys() == theirs.keys()
    for name, grad in theirs.items():
        if case == "bn" and re.fullmatch(r"mlp\.[03]\.bias", name):
            # Batch norm takes away what these add: rounding noise in both.
            assert max(grad.abs().max(), found[name].abs().max()) < 4e-5
        else:
            agrees(TRACE, "gradients of the parameters", found[name], grad, 1e-6)


def test_first_weights(agrees, trace):
    said = trace(TRACE).json["full_size_init_192_65536"]
    torch.manual_seed(1)
    ours = DINOHead(192, 65536, hidden_dim=2048, embed_dim=256)
    for name, parameter in ours.named_parameters():
        theirs = said[their_name(name)]
        assert [*parameter.shape] == theirs["shape"]
        assert parameter.requires_grad == theirs["requires_grad"]
        if theirs["std"] == 0:
            assert (parameter == theirs["mean"]).all()
        else:
            agrees(TRACE, "standard deviation of first weights", parameter.std(), theirs["std"], 5e-3)
            assert abs(parameter.mean()) < 4 * theirs["std"] / parameter.numel() ** 0.5


@pytest.mark.parametrize("case", CASES)
def test_what_learns_and_the_shapes(case, trace):
    said = trace(TRACE).json["cases"][case]["init"]
    ours = head(case)
    found = {their_name(name, ours.num_layers): p for name, p in ours.named_parameters()}
    assert {n: ([*p.shape], p.requires_grad) for n, p in found.items()} == {
        name: (theirs["shape"], theirs["requires_grad"]) for name, theirs in said.items()
    }
