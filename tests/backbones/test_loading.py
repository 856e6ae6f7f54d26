"""Models by name: runs, exported folders, timm, raw pixels."""

import json

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

from sslkit.backbones.loading import load_model
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.errors import SSLKitError, UnknownName
from sslkit.types import IMAGENET_MEAN, IMAGENET_STD, Preprocessing


@pytest.fixture
def run_folder(tmp_path):
    torch.manual_seed(0)
    (tmp_path / "recipe.yaml").write_text("method: {}\n")
    for network in ("teacher", "student"):
        TimmBackbone("test_vit", in_chans=2).save(tmp_path / network)
    preprocessing = {
        "channels": 2,
        "mean": [0.1, 0.2],
        "std": [0.3, 0.4],
        "value_range": [0, 9],
        "size": 32,
        "resize": 40,
    }
    (tmp_path / "data.json").write_text(json.dumps(preprocessing))
    return tmp_path


def test_a_run_gives_the_network_asked_for_and_the_statistics_of_its_data(run_folder):
    teacher, student = load_model(str(run_folder)), load_model(str(run_folder), "student")
    assert (teacher.network, student.network) == ("teacher", "student")
    assert teacher.preprocessing == Preprocessing(2, [0.1, 0.2], [0.3, 0.4], [0, 9], 32, 40)
    assert teacher.backbone.in_chans == 2
    assert not teacher.backbone.training
    images = torch.randn(2, 2, 32, 32)
    saved = TimmBackbone.load(run_folder / "student").eval()
    assert torch.equal(student.backbone(images).cls, saved(images).cls)
    assert not torch.equal(teacher.backbone(images).cls, saved(images).cls)
    directly = load_model(str(run_folder / "student"))
    assert (directly.network, directly.preprocessing) == ("student", student.preprocessing)


def test_a_folder_that_timm_wrote(tmp_path):
    model = timm.create_model("test_vit", num_classes=0)
    timm.models.save_for_hf(model, str(tmp_path), safe_serialization=True)
    loaded = load_model(str(tmp_path))
    images = torch.randn(1, 3, 160, 160)
    assert torch.equal(loaded.backbone(images).cls, model.eval()(images))
    assert loaded.preprocessing == Preprocessing(3, (0.5,) * 3, (0.5,) * 3, None, 160, 183)


def test_weights_are_raised_to_float32(tmp_path):
    TimmBackbone("test_vit").bfloat16().save(tmp_path)
    assert load_model(str(tmp_path)).backbone.model.cls_token.dtype == torch.float32


def test_untrained_weights_are_the_same_each_time_and_leave_the_random_state_alone():
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, second = load_model("untrained:test_vit"), load_model("untrained:test_vit")
    assert torch.equal(torch.get_rng_state(), before)
    images = torch.randn(1, 3, 32, 32)
    assert torch.equal(first.backbone(images).cls, second.backbone(images).cls)
    assert first.preprocessing.mean == (0.485, 0.456, 0.406)
    assert load_model("untrained:test_vit", channels=5).preprocessing.channels == 5


def test_raw_pixels_and_their_variants():
    assert load_model("raw-pixels").backbone.variant == "plain"
    assert load_model("raw-pixels:gray-centered").network == "raw-pixels (gray-centered)"
    with pytest.raises(UnknownName, match="Did you mean 'centered'"):
        load_model("raw-pixels:centred")


def test_models_that_are_not_there(run_folder, tmp_path):
    with pytest.raises(UnknownName, match=r"unknown network 'techer'. Did you mean 'teacher'\? Choices: student"):
        load_model(str(run_folder), "techer")
    with pytest.raises(SSLKitError, match=r"nowhere does not exist. MODEL is a run folder"):
        load_model(str(tmp_path / "nowhere"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(SSLKitError, match="holds neither a run nor a backbone"):
        load_model(str(tmp_path / "empty"))
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "recipe.yaml").touch()
    with pytest.raises(SSLKitError, match="has not saved its networks yet"):
        load_model(str(tmp_path / "young"))
    with pytest.raises(UnknownName, match="Did you mean 'test_vit'"):
        load_model("untrained:tst_vit")


@pytest.mark.parametrize("name", ["Nonsense", "os.system", "json:JSONDecoder"])
def test_a_folder_does_not_choose_what_is_imported(name, tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"sslkit": {"backbone": name}}))
    with pytest.raises(UnknownName, match=r"config\.json: unknown backbone.*Choices: .*TimmBackbone"):
        load_model(str(tmp_path))


@pytest.mark.parametrize(
    "config",
    [
        "",
        "[]",
        "3",
        "[" * 9000,
        '{"sslkit": []}',
        '{"sslkit": {}}',
        '{"sslkit": {"backbone": ["x"]}}',
        '{"sslkit": {"arguments": 3}}',
        '{"sslkit": {"arguments": {"name": 5}}}',
        '{"architecture": 5}',
        '{"model_args": 5}',
        '{"architecture": "test_vit", "pretrained_cfg": [1]}',
    ],
)
def test_a_config_that_is_none_is_one_message(config, tmp_path):
    TimmBackbone("test_vit", model_args={"depth": 1}).save(tmp_path)
    (tmp_path / "config.json").write_text(config)
    with pytest.raises(SSLKitError) as raised:
        load_model(str(tmp_path))
    assert str(tmp_path) in str(raised.value)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("dtype", [torch.int8, torch.bool])
def test_a_folder_of_quantised_weights_is_refused(dtype, tmp_path):
    TimmBackbone("test_vit", model_args={"depth": 1}).save(tmp_path)
    tensors = {name: tensor.to(dtype) for name, tensor in load_file(tmp_path / "model.safetensors").items()}
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(SSLKitError, match=rf"model\.safetensors holds weights of dtype {str(dtype)[6:]}"):
        load_model(str(tmp_path))


VIT = {"img_size": 32, "patch_size": 8, "depth": 2, "embed_dim": 192, "num_heads": 3}


def saved_by_dino(folder, **others):
    networks = [timm.create_model("vit_tiny_patch16_224", num_classes=0, **VIT).eval() for _ in range(2)]
    teacher, student = ({f"backbone.{name}": t for name, t in vit.state_dict().items()} for vit in networks)
    torch.save({"teacher": teacher, "student": student, **others}, folder / "dino.pth")
    return dict(zip(("teacher", "student"), networks, strict=True))


@pytest.mark.parametrize("network", [None, "teacher", "student"])
def test_a_file_of_weights(network, tmp_path):
    theirs = saved_by_dino(tmp_path)
    state = torch.get_rng_state()
    model = load_model(str(tmp_path / "dino.pth"), network)
    assert torch.equal(torch.get_rng_state(), state)
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(model.backbone(images).cls, theirs[network or "teacher"](images))
    assert model.network == (network or "teacher")
    assert model.preprocessing == Preprocessing(3, IMAGENET_MEAN, IMAGENET_STD, None, 32, 37)
    assert not model.backbone.training
    data = Preprocessing(3, [0.1] * 3, [0.2] * 3, None, 16, 16)
    (tmp_path / "data.json").write_text(json.dumps(vars(data)))
    assert load_model(str(tmp_path / "dino.pth")).preprocessing == data


def test_the_network_of_a_file_can_be_named(tmp_path):
    theirs = timm.create_model("test_convnext", num_classes=0).eval()
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    model, images = load_model(str(tmp_path / "weights.pth"), architecture="test_convnext"), torch.randn(2, 3, 96, 96)
    with torch.no_grad():
        assert torch.equal(model.backbone(images).cls, theirs(images))
    for name in ("test_vit", "test_resnet"):
        with pytest.raises(SSLKitError, match=f"its weights are not the weights of {name} .*--backbone NAME"):
            load_model(str(tmp_path / "weights.pth"), architecture=name)
    with pytest.raises(SSLKitError, match="--backbone names the network of a file of weights, and untrained:test_vit"):
        load_model("untrained:test_vit", architecture="test_vit")


def test_a_file_with_more_than_a_plain_network_has_to_be_named(tmp_path):
    state = timm.create_model("vit_tiny_patch16_224", num_classes=0, init_values=1e-5, **VIT).state_dict()
    torch.save(state, tmp_path / "scaled.pth")
    with pytest.raises(SSLKitError, match=r"not those of a plain ViT or ResNet .*in it alone: blocks\.0\.ls1\.gamma"):
        load_model(str(tmp_path / "scaled.pth"))


def test_damaged_folders_are_named(tmp_path):
    TimmBackbone("test_vit").save(tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"nothing")
    with pytest.raises(SSLKitError, match="cannot load this backbone"):
        load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(SSLKitError, match="cannot load this backbone"):
        load_model(str(tmp_path))
    (tmp_path / "data.json").write_text('{"mean": []}')
    TimmBackbone("test_vit").save(tmp_path)
    with pytest.raises(SSLKitError, match=r"data\.json"):
        load_model(str(tmp_path))
