"""First weights from elsewhere: every tensor in its place, or one message that says which are not."""

import pytest
import timm
import torch
import torchvision
from safetensors.torch import load_file, save_file

from sslkit.backbones.foreign import Weights
from sslkit.backbones.raw_pixels import RawPixels
from sslkit.backbones.start import fingerprint, match, read_weights, take
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.errors import SSLKitError

BOTTLENECK = torchvision.models.resnet.Bottleneck
SMALL = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 16]}


def resnet(**arguments):
    return TimmBackbone("resnet18", model_args={**SMALL, **arguments.pop("model_args", {})}, **arguments)


def started(backbone, place, network=None, partial=()):
    found = match(backbone, read_weights(str(place), network), partial)
    take(backbone, found)
    return found


@pytest.mark.parametrize("prefix", ["", "module.", "module.encoder_q.", "module.base_encoder."])
def test_torchvisions_names_are_timms(prefix, tmp_path):
    """MoCo's, SwAV's and torchvision's ResNets in timm's, to the same features."""
    theirs = torchvision.models.resnet.ResNet(BOTTLENECK, [1, 2, 1, 1])
    with torch.no_grad():
        for buffer in theirs.buffers():
            buffer.add_(torch.rand(()).to(buffer))  # running statistics of their own
    torch.save({f"{prefix}{name}": tensor for name, tensor in theirs.state_dict().items()}, tmp_path / "weights.pth")
    ours = TimmBackbone("resnet50", model_args={"layers": [1, 2, 1, 1]})
    found = started(ours, tmp_path / "weights.pth")
    theirs.fc = torch.nn.Identity()
    images = torch.randn(2, 3, 64, 64)
    assert torch.equal(ours.eval()(images).cls, theirs.eval()(images))
    assert (list(found.missing), list(found.unused)) == ([], ["fc.weight", "fc.bias"])
    assert len(found.taken) == len(ours.named_weights())


def test_a_whole_resnet50_has_every_name():
    theirs = torchvision.models.resnet50().state_dict()
    assert {*theirs} - {"fc.weight", "fc.bias"} == {*TimmBackbone("resnet50").named_weights()}


@pytest.mark.parametrize("network", [None, "student"])
def test_a_dino_checkpoint_is_timms_vit(network, tmp_path):
    teacher, student = (timm.create_model("test_vit", num_classes=0) for _ in range(2))
    checkpoint = {
        "teacher": {f"backbone.{name}": tensor for name, tensor in teacher.state_dict().items()},
        "student": {f"module.backbone.{name}": tensor for name, tensor in student.state_dict().items()},
    }
    torch.save(checkpoint, tmp_path / "dino.pth")
    ours, images = TimmBackbone("test_vit"), torch.randn(2, 3, 160, 160)
    started(ours, tmp_path / "dino.pth", network)
    theirs = student if network else teacher
    assert torch.equal(ours.eval()(images).cls, theirs.eval()(images))


def test_a_run_an_export_and_its_file_are_the_same_weights(tmp_path):
    (tmp_path / "recipe.yaml").touch()
    made = {}
    for name in ("teacher", "student"):
        made[name] = resnet()
        made[name].save(tmp_path / name)
    images = torch.randn(2, 3, 32, 32)
    file = tmp_path / "teacher" / "model.safetensors"
    places = [(tmp_path, None), (tmp_path, "teacher"), (tmp_path / "teacher", None), (file, None)]
    for place, network in [*places, (tmp_path / "student", None), (tmp_path, "student")]:
        ours = resnet()
        started(ours, place, network)
        expected = made["teacher" if (place, network) in places else "student"]
        assert torch.equal(ours.eval()(images).cls, expected.eval()(images).cls)
    prints = {fingerprint(w.tensors, w.tensors) for w in (read_weights(str(p), n) for p, n in places)}
    assert len(prints) == 1
    assert prints != {fingerprint(w.tensors, w.tensors) for w in [read_weights(str(tmp_path), "student")]}


def test_timms_pretrained_models_come_by_name(monkeypatch, tmp_path):
    pretrained = timm.create_model("test_vit")
    timm.models.save_for_hf(pretrained, str(tmp_path), safe_serialization=True)
    create = timm.create_model
    monkeypatch.setattr(timm, "create_model", lambda name, **kw: create(f"local-dir:{tmp_path}", **kw))
    ours = TimmBackbone("test_vit", in_chans=1, model_args={"img_size": 64})
    weights = read_weights("timm:test_vit")
    found = match(ours, weights)
    assert (weights.source, weights.preprocessing.mean) == ("timm:test_vit", (0.5,) * 3)
    assert found.reshaped == {
        "pos_embed": ((1, 101, 64), (1, 17, 64)),
        "patch_embed.proj.weight": ((64, 3, 16, 16), (64, 1, 16, 16)),
    }


def test_nothing_is_written_before_everything_fits(tmp_path):
    ours = resnet()
    before = {name: tensor.clone() for name, tensor in ours.named_weights().items()}
    theirs = {name: tensor + 1 for name, tensor in before.items()}
    del theirs["layer4.0.conv2.weight"]
    with pytest.raises(SSLKitError):
        match(ours, Weights("it", theirs))
    assert all(torch.equal(tensor, before[name]) for name, tensor in ours.named_weights().items())


def without(tensors, *begins):
    return {name: tensor for name, tensor in tensors.items() if not name.startswith(begins)}


def test_what_is_missing_left_or_of_another_shape_is_refused_with_the_override(tmp_path):
    ours = TimmBackbone("test_vit", model_args={"depth": 2})
    theirs = TimmBackbone("test_vit", model_args={"depth": 3}).named_weights()
    theirs = without(theirs, "blocks.0.", "norm.bias") | {"cls_token": torch.ones(1, 1, 3)}
    save_file({**theirs, "head.weight": torch.ones(3)}, tmp_path / "odd.safetensors")
    with pytest.raises(SSLKitError) as refused:
        started(ours, tmp_path / "odd.safetensors")
    lines = str(refused.value).splitlines()
    assert lines[0].endswith("odd.safetensors (plain layout) is not this backbone; 16 of 30 tensors fit.")
    assert lines[1].startswith("  not in it: blocks.0.norm1.weight, ")
    assert lines[2] == "  of another shape in it: cls_token"
    assert lines[3].startswith("  in it alone: blocks.2.")
    assert lines[-1] == "  --method.init_from.partial '[blocks.0, norm.bias, cls_token, blocks.2]'"
    before = {name: tensor.clone() for name, tensor in ours.named_weights().items()}
    found = started(ours, tmp_path / "odd.safetensors", partial=["blocks.0", "norm.bias", "cls_token", "blocks.2"])
    assert {name.rpartition(".")[0] for name in found.missing if "blocks" not in name} == {"norm", ""}
    for name, tensor in ours.named_weights().items():
        assert torch.equal(tensor, before[name] if name in found.missing else theirs[name]), name


def test_another_network_is_called_so(tmp_path):
    save_file(TimmBackbone("test_vit").named_weights(), tmp_path / "vit.safetensors")
    with pytest.raises(
        SSLKitError, match=r"has no weight of this backbone\. Is it another network\? .*cls_token.*conv1"
    ):
        started(resnet(), tmp_path / "vit.safetensors")
    torch.save(torchvision.models.resnet.ResNet(BOTTLENECK, [1, 1, 1, 1]).state_dict(), tmp_path / "resnet.pth")
    with pytest.raises(SSLKitError, match=r"It seems to be another network: change method\.backbone to it$"):
        started(resnet(), tmp_path / "resnet.pth", partial=["conv1"])


def test_a_small_stem_starts_afresh_only_where_that_is_said(tmp_path):
    theirs = resnet().named_weights()
    torch.save(theirs, tmp_path / "weights.pth")
    with pytest.raises(SSLKitError, match=r"of another shape in it: conv1.weight\n.*\n.*partial '\[conv1\]'"):
        started(resnet(small_image_stem=True), tmp_path / "weights.pth")
    found = started(resnet(small_image_stem=True), tmp_path / "weights.pth", partial=["conv1"])
    assert found.missing == ["conv1.weight"]


def test_a_partial_name_that_is_nowhere_is_refused():
    theirs = resnet().named_weights()
    with pytest.raises(SSLKitError, match="partial: no weight is called 'layer'"):
        match(resnet(), Weights("it", theirs), ["layer"])


def test_old_files_without_counters_are_whole():
    theirs = {name: t for name, t in resnet().named_weights().items() if not name.endswith("num_batches_tracked")}
    assert match(resnet(), Weights("it", theirs)).missing == []


def test_numbers_that_are_not_finite_are_refused():
    theirs = resnet().named_weights() | {"bn1.bias": torch.full((64,), torch.nan)}
    with pytest.raises(SSLKitError, match=r"it holds numbers that are not finite: bn1\.bias"):
        match(resnet(), Weights("it", theirs))


def test_half_precision_becomes_the_backbones_own(tmp_path):
    theirs = resnet().half().named_weights()
    torch.save(theirs, tmp_path / "half.pth")
    ours = resnet(in_chans=2)
    started(ours, tmp_path / "half.pth")
    assert {t.dtype for t in ours.parameters()} == {torch.float32}
    assert torch.equal(ours.model.layer4[0].conv2.weight, theirs["layer4.0.conv2.weight"].float())


def test_a_backbone_of_ones_own_goes_by_its_own_names(tiny):
    theirs, ours = tiny.Backbone(), tiny.Backbone()
    take(ours, match(ours, Weights("it", theirs.state_dict())))
    assert all(torch.equal(t, theirs.state_dict()[name]) for name, t in ours.state_dict().items())


@pytest.mark.parametrize(
    ("place", "network", "said"),
    [
        (
            "nowhere.pth",
            None,
            r"there are no weights nowhere\.pth: give timm:NAME \(pretrained\), .*, a run folder",
        ),
        ("untrained:resnet18", None, "there are no weights untrained:resnet18: give"),
        ("raw-pixels", None, "there are no weights raw-pixels"),
        ("timm:resnet18", "student", "timm:resnet18 is one network: leave out 'student'"),
        ("timm:resnet81", None, "Did you mean 'resnet18'"),
        (".", None, "holds neither a run nor a backbone"),
    ],
)
def test_weights_that_are_not_there(place, network, said, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SSLKitError, match=said):
        read_weights(place, network)


def test_a_folder_without_weights_has_none_to_give(tmp_path):
    RawPixels().save(tmp_path)
    with pytest.raises(SSLKitError, match="has no weight of this backbone"):
        started(resnet(), tmp_path)


def test_a_fingerprint_is_of_names_types_shapes_and_numbers(tmp_path):
    tensors = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.tensor(3), "c": torch.ones(2).bfloat16()}
    first = fingerprint(tensors, tensors)
    save_file({name: tensor.clone() for name, tensor in tensors.items()}, tmp_path / "x.safetensors")
    reordered = dict(reversed(load_file(tmp_path / "x.safetensors").items()))
    assert fingerprint(reordered, reordered) == first
    others = [
        tensors | {"a": tensors["a"].T.contiguous().T.reshape(3, 2)},
        tensors | {"a": tensors["a"].double()},
        tensors | {"b": torch.tensor(4)},
        {"d" if name == "c" else name: tensor for name, tensor in tensors.items()},
    ]
    assert len({first, fingerprint(tensors, ["a", "b"]), *(fingerprint(each, each) for each in others)}) == 6
    assert fingerprint({"a": tensors["a"].T.contiguous().T}, "a") == fingerprint(tensors, "a")
