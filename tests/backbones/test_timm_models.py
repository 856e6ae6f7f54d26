"""timm models are made for several resolutions, and what timm refuses is one message with a remedy."""

import math

import pytest
import timm
import torch

from sslkit.backbones.timm_models import (
    check_model_args,
    create_timm_model,
    images_for_timm,
    set_fused_attention,
    use_small_image_stem,
)
from sslkit.errors import NotSupported, RecipeError, SSLKitError, UnknownName
from sslkit.types import Preprocessing


@pytest.mark.parametrize("name", ["test_vit", "test_resnet", "test_convnext"])
def test_a_model_has_no_classifier_and_takes_other_sizes(name):
    model = create_timm_model(name, pretrained=False, arguments={}).eval()
    for size in (64, 96):
        assert model(torch.randn(2, 3, size, size)).shape == (2, model.num_features)


def test_a_fixed_size_can_be_asked_for():
    model = create_timm_model("test_vit", False, {"dynamic_img_size": False, "img_size": 64})
    with pytest.raises(AssertionError):
        model(torch.randn(1, 3, 96, 96))


@pytest.mark.parametrize(
    ("name", "arguments", "error", "message"),
    [
        ("resnet19", {}, UnknownName, "resnet18"),
        ("resnet18.imagenet", {}, UnknownName, "unknown pretrained tag of resnet18 'imagenet'"),
        ("test_vit", {"layers": [1]}, SSLKitError, r"does not take 'layers': .*model_args null drops them"),
        ("test_resnet", {"layers": 5}, SSLKitError, r"cannot be created with {'layers': 5}: TypeError: 'int' object"),
        ("test_resnet", {"output_stride": 7}, SSLKitError, r"created with .*: assert output_stride in \(8, 16, 32\)"),
    ],
)
def test_what_timm_cannot_make_is_one_message(name, arguments, error, message):
    with pytest.raises(error, match=message):
        create_timm_model(name, pretrained=False, arguments=arguments)


@pytest.mark.parametrize("name", ["poolformer_s12", "naflexvit_base_patch16_gap"])
def test_a_model_whose_signature_has_no_dynamic_size_is_made(name):
    """timm words this refusal in two ways."""
    with torch.device("meta"):
        assert create_timm_model(name, False, {}).num_features


@pytest.mark.parametrize(
    ("model_args", "said"),
    [
        ({"features_only": True}, "model_args: features_only has no use: .*; leave it out"),
        ({"num_classes": 10}, "model_args: num_classes has no use: a backbone has no classifier"),
        ({"pretrained": True}, "model_args: pretrained is an argument of TimmBackbone itself"),
        ({"in_chans": 1}, "model_args: in_chans is 1, but the images have 3 channels"),
    ],
)
def test_arguments_that_a_backbone_gives_itself_are_refused(model_args, said):
    with pytest.raises(RecipeError, match=said):
        check_model_args(model_args, in_chans=3)
    check_model_args({"in_chans": 3, "img_size": 32}, in_chans=3)


def test_a_small_stem_is_a_resnets_alone():
    model = timm.create_model("test_resnet", num_classes=0).eval()
    before = model(torch.randn(1, 3, 32, 32)).shape
    width = len(model.bn1.weight)
    use_small_image_stem(model, "test_resnet")
    assert model.conv1.weight.shape == (width, 3, 3, 3)
    assert model(torch.randn(1, 3, 32, 32)).shape == before
    # One reduction by 4 is gone: 32 / 8, not 32 / 32.
    assert model.forward_features(torch.randn(1, 3, 32, 32)).shape[-2:] == (4, 4)
    with pytest.raises(NotSupported, match="'test_vit' has no ResNet stem"):
        use_small_image_stem(timm.create_model("test_vit"), "test_vit")


def test_timm_resizes_by_its_crop_as_the_run_did():
    """timm floors size / crop_pct, where rounding may lose a pixel."""
    for size in range(1, 257, 5):
        for resize in range(size, 2 * size + 30, 7):
            said = images_for_timm(Preprocessing(4, (0.5,) * 4, (0.2,) * 4, None, size, resize))
            assert math.floor(size / said["crop_pct"]) == resize
            assert said["input_size"] == (4, size, size)


@pytest.mark.parametrize("fused", [True, False])
def test_attention_is_fused_in_every_block_or_in_none(fused):
    model = timm.create_model("test_vit")
    set_fused_attention(model, fused)
    assert {block.attn.fused_attn for block in model.blocks} == {fused}
