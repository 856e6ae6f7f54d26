"""DINO's rule for positions at other resolutions, against loops over its formula in float64."""

import copy
import itertools
import math
import pickle

import pytest
import timm
import torch
from torch._subclasses import FakeTensorMode

from sslkit.backbones.scaled_positions import resample_by_scale
from sslkit.backbones.start import match, read_weights, take
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.device import COMPILE_OPTIONS
from sslkit.errors import NotSupported, UnknownName
from sslkit.types import Preprocessing

A = -0.75  # of torch's cubic convolution, and OpenCV's


def cubic(distance):
    t = abs(distance)
    if t <= 1:
        return (A + 2) * t**3 - (A + 3) * t**2 + 1
    return A * t**3 - 5 * A * t**2 + 8 * A * t - 4 * A if t < 2 else 0.0


def neighbours(place, stored, wanted):
    """Stored places and weights, on one side, of one of the wanted places; beyond the border its last place counts."""
    at = (place + 0.5) / ((wanted + 0.1) / stored) - 0.5
    first = math.floor(at) - 1
    return [(min(max(i, 0), stored - 1), cubic(at - i)) for i in range(first, first + 4)]


def slow(positions, stored, wanted, prefix):
    """Positions (1, tokens, F) of another grid, number by number; as they are where the grid is the same."""
    if wanted == stored:
        return positions
    table = positions.double()
    found = [table[0, i] for i in range(prefix)]
    for row, column in itertools.product(*map(range, wanted)):
        rows, columns = neighbours(row, stored[0], wanted[0]), neighbours(column, stored[1], wanted[1])
        found.append(sum(a * b * table[0, prefix + i * stored[1] + j] for i, a in rows for j, b in columns))
    return torch.stack(found)[None]


def make(positions="dino", name="test_vit", **model_args):
    torch.manual_seed(0)
    return TimmBackbone(name, model_args=model_args, positions=positions).eval()


def images(height, width=None, dtype=torch.float64):
    return torch.randn(2, 3, height, width or height, dtype=dtype)


@pytest.mark.parametrize("prefix", [0, 1, 3])
@pytest.mark.parametrize("stored", [(5, 7), (14, 14), (1, 3)])
@pytest.mark.parametrize("wanted", [(6, 6), (3, 11), (11, 3), (1, 1), (7, 5), (14, 15)])
def test_resampling_is_the_formula(stored, wanted, prefix):
    positions = torch.randn(1, prefix + math.prod(stored), 3, dtype=torch.float64)
    found = resample_by_scale(positions, stored, wanted, prefix)
    torch.testing.assert_close(found, slow(positions, stored, wanted, prefix), rtol=0, atol=1e-13)


def test_the_stored_grid_is_left_as_it_is():
    positions = torch.randn(1, 13, 2)
    assert resample_by_scale(positions, (3, 4), (3, 4), 1) is positions
    assert not torch.equal(resample_by_scale(positions, (3, 4), (4, 3), 1), positions)


@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-6), (torch.bfloat16, 1e-2), (torch.float16, 2e-3)])
def test_half_precision_is_resampled_in_float32(dtype, within):
    positions = torch.randn(1, 26, 7).to(dtype)
    found = resample_by_scale(positions, (5, 5), (3, 4), 1)
    assert found.dtype == dtype
    assert torch.equal(found, resample_by_scale(positions.float(), (5, 5), (3, 4), 1).to(dtype))
    torch.testing.assert_close(found.double(), slow(positions, (5, 5), (3, 4), 1), rtol=within, atol=within)


def test_autocast_leaves_it_in_float32():
    positions = torch.randn(1, 26, 7)
    with torch.autocast("cpu", torch.bfloat16):
        found = resample_by_scale(positions, (5, 5), (3, 4), 1)
    assert torch.equal(found, resample_by_scale(positions, (5, 5), (3, 4), 1))


MODELS = {
    "class token": {},
    "registers": {"reg_tokens": 3},
    "positions of patches alone": {"reg_tokens": 2, "no_embed_class": True},
    "neither": {"class_token": False, "global_pool": "avg"},
}


@pytest.mark.parametrize("model_args", MODELS.values(), ids=MODELS)
@pytest.mark.parametrize("sides", [(160, 160), (96, 96), (32, 112), (112, 32), (192, 176)])
def test_a_vit_sees_the_tokens_that_dinos_code_sees(model_args, sides):
    model = make(**model_args).double().model
    seen = images(*sides)
    patches = model.patch_embed(seen).flatten(1, 2)
    before = [token.expand(2, -1, -1) for token in (model.cls_token, model.reg_token) if token is not None]
    own = 0 if model.no_embed_class else model.num_prefix_tokens
    positions = slow(model.pos_embed, (10, 10), tuple(side // 16 for side in sides), own)
    expected = torch.cat([*before, patches], 1)
    expected[:, model.num_prefix_tokens - own :] += positions
    torch.testing.assert_close(model._pos_embed(model.patch_embed(seen)), expected, rtol=0, atol=1e-12)


def with_slow_positions(backbone, side):
    """The same network, built for this side alone, where timm resamples nothing."""
    grid = (side // 16,) * 2
    other = TimmBackbone(backbone.name, model_args={**backbone.model_args, "img_size": side, "dynamic_img_size": False})
    weights = backbone.model.state_dict()
    weights["pos_embed"] = slow(weights["pos_embed"], backbone.model.patch_embed.grid_size, grid, 1)
    other.double().model.load_state_dict(weights)
    return other.eval()


@torch.no_grad()
def test_the_class_token_at_96_px_is_dinos_where_timms_is_off_by_a_fiftieth():
    ours, theirs = (make(rule, "vit_small_patch16_224", depth=4).double() for rule in ("dino", "timm"))
    assert all(torch.equal(value, theirs.model.state_dict()[name]) for name, value in ours.model.state_dict().items())
    seen = images(96)
    expected = with_slow_positions(ours, 96)(seen).cls
    far = [(backbone(seen).cls - expected).norm(dim=1) / expected.norm(dim=1) for backbone in (ours, theirs)]
    assert far[0].max() < 1e-12
    assert 0.01 < far[1].min() <= far[1].max() < 0.04
    seen = images(224)
    assert torch.equal(ours(seen).cls, theirs(seen).cls)


def test_layers_and_attention_see_the_same_positions():
    backbone = make().double()
    expected, seen = with_slow_positions(backbone, 64), images(64)
    for found, layer in zip(backbone.layers(seen, 3), expected.layers(seen, 3), strict=True):
        torch.testing.assert_close(found.cls, layer.cls, rtol=0, atol=1e-12)
        torch.testing.assert_close(found.patches, layer.patches, rtol=0, atol=1e-12)
    torch.testing.assert_close(backbone.attention(seen), expected.attention(seen), rtol=0, atol=1e-12)


def test_the_gradient_reaches_the_stored_positions():
    backbone = make().double()
    table = backbone.model.pos_embed
    weights = torch.randn(1, 1 + 3 * 5, 64, dtype=torch.float64)
    tokens = backbone.model._pos_embed(torch.zeros(1, 3, 5, 64, dtype=torch.float64))
    (tokens * weights).sum().backward()
    leaf = table.detach().clone().requires_grad_()
    (slow(leaf, (10, 10), (3, 5), 1) * weights).sum().backward()
    torch.testing.assert_close(table.grad, leaf.grad, rtol=0, atol=1e-12)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda backbone: pickle.loads(pickle.dumps(backbone))])
def test_a_copy_resamples_its_own_positions(duplicate):
    backbone = make()
    twin, seen = duplicate(backbone), images(96, dtype=torch.float32)
    before = backbone(seen).cls
    assert torch.equal(twin(seen).cls, before)
    with torch.no_grad():
        backbone.model.pos_embed.add_(torch.randn_like(backbone.model.pos_embed))
    assert torch.equal(twin(seen).cls, before)
    assert not torch.equal(backbone(seen).cls, before)
    assert twin.model.state_dict().keys() == make("timm").model.state_dict().keys()


def test_activations_can_be_computed_again():
    plain, again = make().train(), make().train()
    again.checkpoint_activations()
    for backbone in (plain, again):
        backbone(images(96, 64, torch.float32)[:1].fill_(0.5)).cls.sum().backward()
    assert torch.equal(again.model.pos_embed.grad, plain.model.pos_embed.grad)


def test_tensors_without_content_have_the_right_shapes():
    backbone = make()
    with FakeTensorMode(allow_non_fake_inputs=True) as mode:
        features = backbone(mode.from_tensor(torch.zeros(2, 3, 96, 64)))
    assert (features.cls.shape, features.patches.shape) == ((2, 64), (2, 24, 64))


@pytest.mark.long
def test_compiled_it_is_the_same_at_several_sizes(monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")
    eager, compiled = make(), make()
    compiled.compile(options=COMPILE_OPTIONS)
    for side in (160, 96, 64):
        for backbone in (eager, compiled):
            torch.manual_seed(side)
            backbone(images(side, dtype=torch.float32)).cls.square().sum().backward()
        torch.testing.assert_close(compiled.model.pos_embed.grad, eager.model.pos_embed.grad, rtol=1e-3, atol=1e-4)


def test_a_saved_backbone_keeps_the_rule(tmp_path):
    backbone, seen = make(reg_tokens=1), images(96, dtype=torch.float32)
    backbone.save(tmp_path)
    loaded = TimmBackbone.load(tmp_path).eval()
    assert loaded.positions == "dino"
    assert torch.equal(loaded(seen).cls, backbone(seen).cls)
    theirs = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    stored = images(160, dtype=torch.float32)
    assert torch.equal(theirs(stored), backbone(stored).cls)
    assert not torch.allclose(theirs(seen), backbone(seen).cls, rtol=1e-3)


def test_writing_for_timm_leaves_the_backbone_as_it_was(tmp_path):
    backbone, seen = make(), images(96, dtype=torch.float32)
    expected = backbone(seen).cls
    backbone.save_for_timm(tmp_path, Preprocessing(3, [0.5] * 3, [0.25] * 3, None, 64, 64))
    assert (backbone.model_args, backbone.model.patch_embed.img_size) == ({}, (160, 160))
    assert torch.equal(backbone(seen).cls, expected)


def test_folders_of_before_have_timms_rule(tmp_path):
    backbone, seen = make("timm"), images(96, dtype=torch.float32)
    backbone.save(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert text.count('"positions": "timm"') == 1
    (tmp_path / "config.json").write_text(text.replace('"positions": "timm"', '"fused_attention": null'))
    loaded = TimmBackbone.load(tmp_path).eval()
    assert loaded.positions == "timm"
    assert torch.equal(loaded(seen).cls, backbone(seen).cls)


@pytest.mark.parametrize("side", [96, 192])
def test_weights_that_are_loaded_for_another_size_are_what_dinos_code_makes_of_them_there(side, tmp_path):
    theirs = make("dino").double()
    torch.save({"teacher": {f"backbone.{n}": t for n, t in theirs.model.state_dict().items()}}, tmp_path / "dino.pth")
    ours = TimmBackbone("test_vit", model_args={"img_size": side}, positions="dino").double().eval()
    found = match(ours, read_weights(str(tmp_path / "dino.pth")))
    take(ours, found)
    assert found.reshaped == {"pos_embed": ((1, 101, 64), (1, 1 + (side // 16) ** 2, 64))}
    seen = images(side)
    torch.testing.assert_close(ours(seen).cls, with_slow_positions(theirs, side)(seen).cls, rtol=0, atol=1e-12)


def test_another_input_size_is_stored_by_the_same_rule():
    backbone, seen = make().double(), images(96, 64)
    expected = backbone(seen).cls
    backbone.model.set_input_size((96, 64))
    assert backbone.model.pos_embed.shape == (1, 25, 64)
    assert backbone.model.pos_embed.requires_grad
    torch.testing.assert_close(backbone(seen).cls, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("name", "model_args", "reason"),
    [
        ("test_resnet", {}, "is a ResNet without position embeddings of a plain ViT"),
        ("swin_tiny_patch4_window7_224", {}, "is a SwinTransformer without"),
        ("deit_tiny_distilled_patch16_224", {}, "is a VisionTransformerDistilled without"),
        ("vit_small_patch16_dinov3_qkvb", {"depth": 1}, "is a Eva without"),
        ("test_vit", {"pos_embed": "none"}, "is a VisionTransformer without"),
        ("test_vit", {"dynamic_img_size": False}, r"takes one size only \(dynamic_img_size: false\)"),
    ],
)
def test_what_has_no_such_positions_is_refused_by_name(name, model_args, reason):
    said = rf"^positions: dino: '{name}' {reason}.*Choose a vit_\* of timm .*--method\.backbone\.positions timm$"
    with pytest.raises(NotSupported, match=said):
        TimmBackbone(name, model_args=model_args, positions="dino")


def test_an_unknown_rule_is_named():
    with pytest.raises(UnknownName, match=r"positions: unknown rule 'dyno'\. Did you mean 'dino'"):
        TimmBackbone("test_vit", positions="dyno")
