"""Which parameters DINO decays, by name (utils.get_params_groups)."""

import json
from pathlib import Path

import pytest

from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.heads.dino_head import DINOHead
from sslkit.method.branch import Branch
from sslkit.optimizers.parameter_groups import parameter_groups

CASES = {
    "norm_last_layer_true": {},
    "norm_last_layer_false": {"freeze_prototype_norm": False},
    "use_bn": {"batch_norm": True},
}


def their_name(name):
    name = name.replace("backbone.model.", "backbone.")
    return name.replace("head.projector.", "head.mlp.").replace("head.prototypes.", "head.last_layer.")


@pytest.mark.parametrize("case", CASES)
def test_groups(case):
    theirs = json.loads((Path(__file__).parent / "traces/i_param_groups.json").read_text(encoding="utf-8"))["cases"][
        case
    ]
    backbone = TimmBackbone("vit_tiny_patch16_224", model_args={"depth": 3})
    student = Branch(backbone, DINOHead(192, 64, hidden_dim=32, embed_dim=16, **CASES[case]))
    names = {parameter: their_name(name) for name, parameter in student.named_parameters()}
    decayed, others = parameter_groups(student)
    assert {names[p] for p in decayed["params"]} == {*theirs["regularised"]}
    assert {names[p] for p in others["params"]} == {*theirs["not_regularised"]}
    # One case of the trace does not say what is frozen.
    frozen = {name for parameter, name in names.items() if not parameter.requires_grad}
    assert frozen == {*theirs.get("frozen", ["head.last_layer.weight_g"])}
