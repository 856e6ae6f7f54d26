"""DINO's own code reads the checkpoint: its rules are stated here again, slowly."""

import json
import math

import pytest
import torch
import torchvision
from exports import CHANNELS_8, far, images_of
from safetensors.torch import save_file
from torch.nn import functional as F

from sslkit.backbones.foreign import read_checkpoint
from sslkit.backbones.loading import load_model
from sslkit.backbones.raw_pixels import RawPixels
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.errors import NotSupported, SSLKitError
from sslkit.exporting.export import export
from sslkit.heads.dino_head import DINOHead
from sslkit.heads.mlp_head import MLPHead
from sslkit.types import Preprocessing

SMALL = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 48, "num_heads": 3}
STATISTICS = Preprocessing(3, [0.5] * 3, [0.25] * 3, None, 32, 36)
K = 6


def backbone(**arguments):
    return TimmBackbone("vit_tiny_patch16_224", model_args=SMALL, **arguments)


def state_of(folder, key="teacher"):
    """The backbone as the evaluation scripts take it: one network, its wrappers' names left out."""
    checkpoint = torch.load(folder / "checkpoint.pth")
    return {name.replace("module.", "").replace("backbone.", ""): tensor for name, tensor in checkpoint[key].items()}


def positions_for(stored, rows, columns):
    """DINO's rule: the grid is scaled by (n + 0.1) / N a side."""
    side = math.isqrt(stored.shape[1] - 1)
    if (rows, columns) == (side, side):
        return stored
    grid = stored[:, 1:].mT.unflatten(2, (side, side))
    scale = ((rows + 0.1) / side, (columns + 0.1) / side)
    grid = F.interpolate(grid, scale_factor=scale, mode="bicubic")
    return torch.cat([stored[:, :1], grid.flatten(2).mT], 1)


def vit(state, images, num_heads):
    """A ViT in plain operations, from images to the class token."""
    layer = lambda x, name: F.linear(x, state[f"{name}.weight"], state[f"{name}.bias"])  # noqa: E731
    norm = lambda x, name: F.layer_norm(x, x.shape[-1:], state[f"{name}.weight"], state[f"{name}.bias"], 1e-6)  # noqa: E731
    kernel = state["patch_embed.proj.weight"]
    patches = F.conv2d(images, kernel, state["patch_embed.proj.bias"], stride=kernel.shape[-1])
    x = torch.cat([state["cls_token"].expand(len(images), -1, -1), patches.flatten(2).mT], 1)
    x = x + positions_for(state["pos_embed"], *patches.shape[-2:])
    for i in range(sum(name.endswith("norm1.weight") for name in state)):
        block = f"blocks.{i}"
        queries, keys, values = layer(norm(x, f"{block}.norm1"), f"{block}.attn.qkv").chunk(3, -1)
        heads = []
        for q, k, v in zip(*(part.chunk(num_heads, -1) for part in (queries, keys, values)), strict=True):
            heads.append((q @ k.mT / math.sqrt(q.shape[-1])).softmax(-1) @ v)
        x = x + layer(torch.cat(heads, -1), f"{block}.attn.proj")
        x = x + layer(F.gelu(layer(norm(x, f"{block}.norm2"), f"{block}.mlp.fc1")), f"{block}.mlp.fc2")
    return norm(x, "norm")[:, 0]


def logits(state, features):
    """DINO's head: an MLP, length 1, and weight-normalised prototypes."""
    layers = sorted(
        {int(name.split(".")[2]) for name in state if name.startswith("head.mlp.") and name.count(".") == 3}
    )
    x = features
    for index, name in enumerate([f"head.mlp.{i}" for i in layers] or ["head.mlp"]):
        x = F.linear(F.gelu(x) if index else x, state[f"{name}.weight"], state[f"{name}.bias"])
    v, g = state["head.last_layer.weight_v"], state["head.last_layer.weight_g"]
    return F.normalize(x, dim=-1) @ (g * v / v.norm(dim=1, keepdim=True)).mT


def with_checkpoint(run, center=True, **heads):
    """Give a run the heads of its networks, as its checkpoints hold them."""
    state = {f"model.{name}.head.{key}": t for name, head in heads.items() for key, t in head.state_dict().items()}
    if center:
        state["model.collapse.center"] = torch.arange(K).float()
    place = run / "checkpoints" / "step-000000012"
    place.mkdir(parents=True)
    save_file(state, place / "state.safetensors")
    rows = [{"step": 6, "epoch": 1.5}, {"step": 12, "epoch": 3.0}]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return run


def head(num_layers=3, batch_norm=False):
    made = DINOHead(48, K, hidden_dim=8, embed_dim=4, num_layers=num_layers, batch_norm=batch_norm)
    with torch.no_grad():
        made.prototypes.weight_g.add_(torch.rand(K, 1))
    return made


@pytest.mark.parametrize("num_layers", [1, 3])
def test_the_official_rules_read_both_networks_and_their_heads(num_layers, make_run):
    heads = {name: head(num_layers) for name in ("teacher", "student")}
    run = with_checkpoint(make_run(STATISTICS, teacher=backbone(), student=backbone()), **heads)
    done = export(run, "dino")
    assert (done.folder.name, {path.name for path in done.folder.iterdir()}) == (
        "run-teacher-dino",
        {"checkpoint.pth", "data.json"},
    )
    checkpoint, images = torch.load(done.folder / "checkpoint.pth"), images_of(STATISTICS)
    assert [*checkpoint] == ["teacher", "student", "epoch", "args", "dino_loss"]
    assert all(name.startswith(("backbone.", "head.")) for name in checkpoint["teacher"])
    assert all(name.startswith(("module.backbone.", "module.head.")) for name in checkpoint["student"])
    assert torch.equal(checkpoint["dino_loss"]["center"], torch.arange(K).float()[None])
    assert checkpoint["epoch"] == 3
    assert checkpoint["args"] == {
        "arch": "vit",
        "patch_size": 8,
        "embed_dim": 48,
        "depth": 2,
        "num_heads": 3,
        "out_dim": K,
    }
    with torch.no_grad():
        for name, ours in heads.items():
            state = state_of(done.folder, name)
            features = load_model(str(run), name).backbone(images).cls
            assert far(vit(state, images, 3), features) < 1e-5
            embedding = F.normalize(ours.projector(features), dim=-1)
            torch.testing.assert_close(logits(state, features), ours.prototypes(embedding))


def test_it_is_read_back_with_its_heads_and_by_evaluations(make_run):
    ours = head()
    run = with_checkpoint(make_run(STATISTICS, teacher=backbone(), student=backbone()), teacher=ours, student=head())
    file = export(run, "dino").folder / "checkpoint.pth"
    weights = read_checkpoint(file, heads=True)
    expected = {f"head.{name}": tensor for name, tensor in ours.state_dict().items()}
    assert weights.heads.keys() == {*expected, "collapse.center"}
    assert all(torch.equal(weights.heads[name], tensor) for name, tensor in expected.items())
    images = images_of(STATISTICS)
    for network in ("teacher", "student"):
        again, first = load_model(str(file), network), load_model(str(run), network)
        assert torch.equal(again.backbone(images).cls, first.backbone(images).cls)
        assert again.preprocessing == first.preprocessing


@pytest.mark.parametrize("rule", ["timm", "dino"])
@pytest.mark.parametrize("size", [32, 48])
def test_the_runs_size_has_the_runs_features(rule, size, make_run):
    preprocessing = Preprocessing(3, [0.5] * 3, [0.25] * 3, None, size, size)
    run = make_run(preprocessing, teacher=backbone(positions=rule), student=backbone(positions=rule))
    state, images = state_of(export(run, "dino").folder), images_of(preprocessing)
    stored = {("timm", 48): 6}.get((rule, size), 4)
    assert state["pos_embed"].shape[1] == stored**2 + 1
    with torch.no_grad():
        assert far(vit(state, images, 3), load_model(str(run)).backbone(images).cls) < 1e-5


def test_torchvisions_resnet_takes_the_teacher(make_run):
    networks = {n: TimmBackbone("resnet50", model_args={"layers": [1, 1, 1, 1]}) for n in ("teacher", "student")}
    run = make_run(STATISTICS, **networks)
    folder = export(run, "dino").folder
    checkpoint = torch.load(folder / "checkpoint.pth")
    assert all(name.startswith("module.backbone.") for key in ("teacher", "student") for name in checkpoint[key])
    assert checkpoint["args"] == {"arch": "resnet50"}
    assert "dino_loss" not in checkpoint
    theirs = torchvision.models.resnet.ResNet(torchvision.models.resnet.Bottleneck, [1, 1, 1, 1]).eval()
    assert theirs.load_state_dict(state_of(folder), strict=False).missing_keys == ["fc.weight", "fc.bias"]
    theirs.fc = torch.nn.Identity()
    images = images_of(STATISTICS)
    with torch.no_grad():
        assert torch.equal(theirs(images), load_model(str(run)).backbone(images).cls)


@pytest.mark.parametrize(("width", "num_heads", "arch"), [(192, 3, "vit_tiny"), (384, 6, "vit_small")])
def test_the_names_of_its_architectures(width, num_heads, arch, make_run):
    args = {"img_size": 32, "embed_dim": width, "num_heads": num_heads}
    networks = {name: TimmBackbone("vit_tiny_patch16_224", model_args=args) for name in ("teacher", "student")}
    folder = export(make_run(STATISTICS, **networks), "dino").folder
    assert torch.load(folder / "checkpoint.pth")["args"]["arch"] == arch


def test_other_heads_and_runs_without_a_checkpoint_leave_the_heads_out(make_run):
    networks = {"teacher": backbone(), "student": backbone()}
    byol = with_checkpoint(make_run(STATISTICS, name="byol", **networks), center=False, teacher=MLPHead(48, 8, 4))
    for run in (byol, make_run(STATISTICS, name="bare", **networks)):
        checkpoint = torch.load(export(run, "dino").folder / "checkpoint.pth")
        assert not any("head." in name for name in checkpoint["teacher"])
        assert "dino_loss" not in checkpoint


def test_a_backbone_without_a_run_is_the_teacher(tmp_path):
    backbone().save(tmp_path / "mine", STATISTICS)
    checkpoint = torch.load(export(tmp_path / "mine", "dino").folder / "checkpoint.pth")
    assert [*checkpoint] == ["teacher", "epoch", "args"]
    assert checkpoint["epoch"] == 0


@pytest.mark.parametrize(
    "made",
    [
        lambda: TimmBackbone("test_convnext"),
        lambda: TimmBackbone("test_vit", model_args={"reg_tokens": 1}),
        lambda: TimmBackbone("test_vit", model_args={"global_pool": "avg"}),
        lambda: TimmBackbone("test_vit", model_args={"no_embed_class": True}),
        lambda: TimmBackbone("resnet18", small_image_stem=True, model_args=CHANNELS_8),
        RawPixels,
    ],
)
def test_what_dinos_code_does_not_build_is_refused(made, make_run, tmp_path):
    run = make_run(STATISTICS, teacher=made(), student=made())
    with pytest.raises(NotSupported, match=r"is no network that DINO's code builds.*--to onnx"):
        export(run, "dino")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_student_alone_is_refused(make_run):
    run = make_run(STATISTICS, teacher=backbone(), student=backbone())
    for place, network in ((run, "student"), (run / "student", None)):
        with pytest.raises(SSLKitError, match=r"--to dino writes teacher and student into one file.*--checkpoint_key"):
            export(place, "dino", network)
