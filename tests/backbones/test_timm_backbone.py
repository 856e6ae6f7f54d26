import copy
import json

import pytest
import timm
import torch
from timm.layers import set_fused_attn

from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.errors import NotSupported, RecipeError, SSLKitError, UnknownName
from sslkit.types import Preprocessing


def images(side, channels=3, n=2, dtype=torch.float32):
    generator = torch.Generator().manual_seed(side)
    return torch.randn(n, channels, side, side, generator=generator, dtype=dtype)


def seeded(*args, **kwargs):
    torch.manual_seed(0)
    return TimmBackbone(*args, **kwargs)


def test_a_vit_gives_the_class_token_and_the_patches_at_several_resolutions():
    backbone = seeded("test_vit").eval()
    for side in (160, 96, 32):
        features = backbone(images(side))
        tokens = backbone.model.forward_features(images(side))
        assert torch.equal(features.cls, tokens[:, 0])
        assert torch.equal(features.patches, tokens[:, 1:])
        assert features.patches.shape == (2, (side // 16) ** 2, 64)
    assert (backbone.embed_dim, backbone.patch_size) == (64, 16)


def test_registers_are_not_patches():
    backbone = seeded("test_vit", model_args={"reg_tokens": 3}).eval()
    assert backbone(images(64)).patches.shape == (2, 16, 64)


def test_a_convolutional_network_gives_the_pooled_map_and_its_places():
    backbone = seeded("test_resnet").eval()
    for height, width in ((96, 96), (75, 40)):
        seen = torch.randn(2, 3, height, width)
        features, last = backbone(seen), backbone.model.forward_features(seen)
        torch.testing.assert_close(features.cls, last.mean((2, 3)))
        assert torch.equal(features.patches[1, 1], last[1, :, 0, 1])
        torch.testing.assert_close(features.patches.mean(1), features.cls)
    assert backbone.patch_size is None


def test_channels_last_maps_are_read_in_the_same_order():
    backbone = seeded("test_mambaout").eval()
    last = backbone.model.forward_features(images(96))
    assert torch.equal(backbone(images(96)).patches[0, 1], last[0, 0, 1])


def test_a_wide_final_layer_is_the_feature():
    backbone = seeded("mobilenetv3_small_050").eval()
    assert backbone(images(64)).cls.shape == (2, backbone.embed_dim) == (2, 1024)


@pytest.mark.parametrize("name", ["test_vit", "test_resnet"])
@pytest.mark.parametrize("channels", [1, 5])
def test_any_number_of_channels(name, channels):
    assert TimmBackbone(name, in_chans=channels).eval()(images(32, channels)).cls.isfinite().all()


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_the_dtype_of_the_weights_is_the_dtype_of_the_features(dtype):
    backbone = seeded("test_vit").to(dtype).eval()
    assert backbone(images(160, dtype=dtype)).cls.dtype == dtype


def test_small_names_of_the_paper_have_its_initialisation():
    model = TimmBackbone("vit_tiny_patch16_224").model
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05), name
            assert not module.bias.any(), name
        if isinstance(module, torch.nn.LayerNorm):
            assert module.eps == 1e-6, name
    assert model.blocks[0].attn.qkv.bias is not None
    assert model.pos_embed.std().item() == pytest.approx(0.02, rel=0.05)


def test_drop_path_rises_linearly_and_adds_no_parameter():
    backbone = seeded("test_vit", drop_path_rate=0.2)
    rates = [getattr(block.drop_path1, "drop_prob", 0.0) for block in backbone.model.blocks]
    assert rates == pytest.approx(torch.linspace(0, 0.2, len(rates)).tolist())
    assert backbone.state_dict().keys() == seeded("test_vit").state_dict().keys()


@pytest.mark.parametrize("rate", [-0.5, 1, 2])
def test_a_drop_path_rate_that_is_no_share_is_refused(rate):
    with pytest.raises(RecipeError, match=f"drop_path_rate of TimmBackbone is at least 0 and below 1, not {rate}"):
        TimmBackbone("test_vit", drop_path_rate=rate)


def test_layers_end_with_what_forward_gives():
    backbone = seeded("test_vit").eval()
    layers = backbone.layers(images(96), 3)
    assert len(layers) == 3
    torch.testing.assert_close(layers[-1].cls, backbone(images(96)).cls)
    torch.testing.assert_close(layers[-1].patches, backbone(images(96)).patches)
    assert not torch.allclose(layers[0].cls, layers[1].cls)


def test_layers_of_a_convolutional_network_are_its_stages():
    backbone = seeded("test_resnet").eval()
    layers = backbone.layers(images(64), 2)
    assert [layer.patches.shape for layer in layers] == [(2, 16, 192), (2, 4, 96)]
    torch.testing.assert_close(layers[-1].cls, backbone(images(64)).cls)


@pytest.mark.parametrize("n", [0, 99])
def test_more_layers_than_there_are_is_refused(n):
    with pytest.raises(RecipeError, match="layers: ask for 1 to"):
        TimmBackbone("test_vit").layers(images(32), n)


@pytest.mark.parametrize("model_args", [{}, {"reg_tokens": 2}, {"qk_norm": True}])
@pytest.mark.parametrize("fused", [True, False])
def test_attention_is_the_softmax_of_the_last_block(model_args, fused):
    backbone = seeded("test_vit", model_args=model_args, fused_attention=fused).eval()
    model, attn = backbone.model, backbone.model.blocks[-1].attn
    seen = torch.randn(2, 3, 64, 96)
    maps = backbone.attention(seen)
    tokens = model.norm_pre(model._pos_embed(model.patch_embed(seen)))
    for block in model.blocks[:-1]:
        tokens = block(tokens)
    tokens = model.blocks[-1].norm1(tokens)
    n, t, _ = tokens.shape
    q, k, _ = attn.qkv(tokens).view(n, t, 3, attn.num_heads, -1).permute(2, 0, 3, 1, 4)
    weights = (attn.q_norm(q) @ attn.k_norm(k).mT * attn.head_dim**-0.5).softmax(-1)
    expected = weights[:, :, 0, model.num_prefix_tokens :].reshape(n, attn.num_heads, 4, 6)
    torch.testing.assert_close(maps, expected)
    assert all(block.attn.fused_attn is fused for block in model.blocks)
    assert not attn.attn_drop._forward_pre_hooks


def test_attention_with_rotary_positions():
    backbone = seeded("vit_small_patch16_dinov3_qkvb", model_args={"depth": 1, "img_size": 64}).eval()
    maps = backbone.attention(images(64))
    assert maps.shape == (2, 6, 4, 4)
    assert (maps.sum((2, 3)) < 1).all()


@pytest.mark.parametrize("name", ["test_resnet", "test_vit2"])
def test_no_class_token_no_attention(name):
    model_args = {"class_token": False} if name == "test_vit2" else None
    with pytest.raises(NotSupported, match=f"{name}.*no attention"):
        TimmBackbone(name, model_args=model_args).attention(images(32))


@pytest.mark.parametrize("fused", [True, False])
def test_fused_attention_can_be_chosen_and_changes_rounding_alone(fused):
    backbone = seeded("test_vit", fused_attention=fused).eval()
    assert backbone.model.blocks[0].attn.fused_attn is fused
    torch.testing.assert_close(backbone(images(64)).cls, seeded("test_vit").eval()(images(64)).cls)


def test_the_default_of_fused_attention_is_timms():
    set_fused_attn(False)
    try:
        assert not TimmBackbone("test_vit").model.blocks[0].attn.fused_attn
    finally:
        set_fused_attn(True)


def test_small_image_stem_keeps_the_resolution():
    backbone = seeded("resnet18", in_chans=2, small_image_stem=True, model_args={"channels": [8, 8, 16, 16]}).eval()
    assert backbone.model.act1(backbone.model.bn1(backbone.model.conv1(images(32, 2)))).shape[-2:] == (32, 32)
    assert backbone(images(32, 2)).patches.shape == (2, 16, 16)


def test_small_image_stem_can_be_narrow():
    narrow = {"stem_type": "deep", "stem_width": 4, "channels": [8, 8, 8, 8]}
    model = TimmBackbone("resnet18", small_image_stem=True, model_args=narrow).model
    assert model.conv1.weight.shape == (8, 3, 3, 3)


@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_small_image_stem_is_refused_by_name(name):
    with pytest.raises(NotSupported, match=f"small_image_stem: '{name}'"):
        TimmBackbone(name, small_image_stem=True)


SAVED = {
    "vit": dict(name="test_vit", drop_path_rate=0.1, model_args={"reg_tokens": 1}),
    "vit on 32 px": dict(name="vit_tiny_patch16_224", model_args={"img_size": 32, "patch_size": 8, "depth": 2}),
    "four channels": dict(name="test_resnet", in_chans=4),
    "grey": dict(name="test_vit", in_chans=1, fused_attention=False),
}


@pytest.mark.parametrize("arguments", SAVED.values(), ids=SAVED)
def test_a_saved_backbone_loads_here_and_in_timm(arguments, tmp_path):
    backbone = seeded(**arguments).eval()
    backbone.save(tmp_path)
    assert {file.name for file in tmp_path.iterdir()} == {"config.json", "model.safetensors"}
    loaded = TimmBackbone.load(tmp_path).eval()
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    for side in (32, 64):
        seen = images(side, backbone.in_chans)
        expected = backbone(seen).cls
        assert torch.equal(loaded(seen).cls, expected)
        torch.testing.assert_close(theirs(seen), expected, atol=1e-6, rtol=1e-6)  # its attention may be fused
    assert loaded.drop_path_rate == backbone.drop_path_rate
    assert loaded.fused_attention == backbone.fused_attention


STATISTICS = Preprocessing(3, [0.1, 0.2, 0.3], [0.4, 0.5, 0.6], None, 48, 54)


@pytest.mark.parametrize("preprocessing", [STATISTICS, None])
@pytest.mark.parametrize("name", ["vit_tiny_patch16_224.augreg_in21k", "test_resnet.r160_in1k"])
def test_a_saved_backbone_does_not_pass_for_the_weights_that_timm_has_of_this_name(name, preprocessing, tmp_path):
    small = {"depth": 1, "img_size": 64} if name.startswith("vit") else {}
    backbone = TimmBackbone(name, model_args=small)
    assert tuple(backbone.model.pretrained_cfg["mean"]) == (0.5, 0.5, 0.5)
    backbone.save(tmp_path, preprocessing)
    said = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert not {*said} & {"tag", "license", "paper_ids", "paper_name", "hf_hub_id", "url", "origin_url", "file"}
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True)
    found = timm.data.resolve_model_data_config(loaded)
    if preprocessing is None:
        assert (found["mean"], found["std"]) == ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    else:
        assert (found["mean"], found["std"]) == (preprocessing.mean, preprocessing.std)
        assert (found["input_size"], found["crop_pct"]) == ((3, 48, 48), pytest.approx(48 / 54))


@pytest.mark.parametrize("channels", [1, 4])
def test_saving_other_channels_without_statistics_says_the_default_ones(channels, tmp_path, caplog):
    TimmBackbone("test_vit", channels).save(tmp_path)
    said = json.loads((tmp_path / "config.json").read_text())["pretrained_cfg"]
    assert (said["mean"], said["std"]) == ([0.5] * channels, [0.25] * channels)
    assert not caplog.records


def test_statistics_of_a_size_that_the_model_cannot_take_are_refused(tmp_path):
    strict = TimmBackbone("test_vit", model_args={"dynamic_img_size": False})
    with pytest.raises(NotSupported, match=r"timm cannot write 'test_vit': .*\(48, 48\).*\(160, 160\)"):
        strict.save(tmp_path, STATISTICS)


def test_the_small_image_stem_survives_saving(tmp_path):
    backbone = seeded("resnet18", small_image_stem=True, model_args={"channels": [8, 8, 8, 8]}).eval()
    backbone.save(tmp_path)
    assert torch.equal(TimmBackbone.load(tmp_path).eval()(images(32)).cls, backbone(images(32)).cls)


def test_float64_weights_survive_saving(tmp_path):
    backbone = seeded("test_vit").double().eval()
    backbone.save(tmp_path)
    seen = images(160, dtype=torch.float64)
    assert torch.equal(TimmBackbone.load(tmp_path).eval()(seen).cls, backbone(seen).cls)


def test_a_folder_that_timm_wrote_loads_and_can_be_saved_again(tmp_path):
    model = timm.create_model("test_vit", num_classes=7, in_chans=2).eval()
    first, second = tmp_path / "first", tmp_path / "second"
    timm.models.save_for_hf(model, str(first), model_args={"in_chans": 2}, safe_serialization=True)
    backbone = TimmBackbone.load(first).eval()
    seen = images(160, 2)
    expected = model.forward_head(model.forward_features(seen), pre_logits=True)
    assert torch.equal(backbone(seen).cls, expected)
    backbone.save(second)
    assert str(tmp_path) not in json.dumps(json.loads((second / "config.json").read_text()))
    assert torch.equal(TimmBackbone.load(second).eval()(seen).cls, expected)


def test_a_copy_is_independent():
    backbone = seeded("test_vit").eval()
    twin = copy.deepcopy(backbone)
    with torch.no_grad():
        twin.model.cls_token.add_(1)
    assert not torch.equal(twin(images(32)).cls, backbone(images(32)).cls)
    assert torch.equal(seeded("test_vit").eval()(images(32)).cls, backbone(images(32)).cls)


def test_an_unknown_name_has_a_suggestion_and_few_choices():
    with pytest.raises(UnknownName, match="Did you mean 'vit_small_patch16_224'") as error:
        TimmBackbone("vit_smal_patch16_224")
    assert len(str(error.value)) < 400
    with pytest.raises(UnknownName, match="Did you mean 'dino'"):
        TimmBackbone("vit_small_patch16_224.dyno")


def test_arguments_that_do_not_fit_are_named():
    with pytest.raises(SSLKitError, match=r"test_resnet.*does not take 'img_size'"):
        TimmBackbone("test_resnet", model_args={"img_size": 32})
    with pytest.raises(SSLKitError, match="no_such_folder"):
        TimmBackbone("local-dir:no_such_folder", pretrained=True)


def test_images_that_do_not_fit_are_refused_with_what_would():
    with pytest.raises(RecipeError, match=r"100x100 px do not divide into the 16 px patches.*such as 96 or 112"):
        TimmBackbone("test_vit")(images(100))
    with pytest.raises(RecipeError, match="in_chans=3, the images have 4"):
        TimmBackbone("test_vit")(images(32, 4))
    with pytest.raises(RecipeError, match="160x160 px alone, not 96x96"):
        TimmBackbone("test_vit", model_args={"dynamic_img_size": False})(images(96))
    assert TimmBackbone("test_vit", model_args={"dynamic_img_pad": True}).eval()(images(100)).cls.shape == (2, 64)


def test_masks_are_refused():
    with pytest.raises(NotSupported, match="cannot hide patches"):
        TimmBackbone("test_vit")(images(32), mask=torch.zeros(2, 4, dtype=torch.bool))
