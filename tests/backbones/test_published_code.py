"""What DINO's published code builds, and by which arguments."""

import pytest
import torch

from sslkit.backbones.published_code import published_arguments
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.errors import NotSupported

SMALL = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}


@pytest.mark.parametrize(
    ("name", "arch", "width", "num_heads"),
    [("vit_tiny_patch16_224", "vit_tiny", 192, 3), ("vit_small_patch8_224.dino", "vit_small", 384, 6)],
)
def test_its_vits(name, arch, width, num_heads):
    patch = 8 if "patch8" in name else 16
    expected = {"arch": arch, "patch_size": patch, "embed_dim": width, "depth": 12, "num_heads": num_heads}
    assert published_arguments(TimmBackbone(name).model, name) == expected


def test_a_vit_of_another_width_and_a_resnet():
    model = TimmBackbone("vit_tiny_patch16_224", model_args=SMALL).model
    expected = {"arch": "vit", "patch_size": 8, "embed_dim": 48, "depth": 2, "num_heads": 3}
    assert published_arguments(model, "vit_tiny_patch16_224") == expected
    assert published_arguments(TimmBackbone("resnet18").model, "resnet18.a1_in1k") == {"arch": "resnet18"}


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("test_convnext", {}),
        ("test_vit", {"reg_tokens": 1}),
        ("test_vit", {"global_pool": "avg"}),
        ("test_vit", {"no_embed_class": True}),
        ("test_vit", {"qk_norm": True}),
        ("resnet18", {"stem_type": "deep"}),
    ],
)
def test_other_networks_are_refused(name, arguments):
    with pytest.raises(NotSupported, match=f"{name} is no network that DINO's code builds.*--to onnx"):
        published_arguments(TimmBackbone(name, model_args=arguments).model, name)


@pytest.mark.parametrize(("rule", "size", "stored"), [("timm", 32, 4), ("timm", 48, 6), ("dino", 48, 4)])
def test_positions_are_stored_for_the_size_where_the_rules_differ(rule, size, stored):
    backbone = TimmBackbone("vit_tiny_patch16_224", model_args=SMALL, positions=rule)
    weights, arguments = backbone.for_published_code(size)
    assert weights["pos_embed"].shape == (1, stored**2 + 1, 48)
    assert torch.equal(weights["cls_token"], backbone.model.cls_token)
    assert arguments["num_heads"] == 3
    assert backbone.model.pos_embed.shape == (1, 17, 48)
