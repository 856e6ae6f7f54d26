"""What can be exported, and what is named where it cannot."""

import pytest
import timm
import torch
from exports import as_a_user

import sslkit
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.errors import SSLKitError, UnknownName
from sslkit.exporting.export import export


def test_a_backbone_alone_can_be_exported(tmp_path):
    backbone = TimmBackbone("test_vit", model_args={"depth": 1}).eval()
    backbone.save(tmp_path / "mine")
    done = export(tmp_path / "mine", "hf")
    assert (done.folder.name, done.network) == ("mine-hf", "mine")
    seen = torch.randn(2, 3, 160, 160)
    torch.testing.assert_close(as_a_user(done.folder)(seen), backbone(seen).cls)


def test_a_file_of_weights_can_be_exported(tmp_path):
    theirs = timm.create_model("vit_tiny_patch16_224", num_classes=0, img_size=32, depth=1).eval()
    torch.save({"teacher": {f"backbone.{name}": t for name, t in theirs.state_dict().items()}}, tmp_path / "dino.pth")
    done = export(tmp_path / "dino.pth", "hf")
    assert (done.folder.name, done.network) == ("dino-teacher-hf", "teacher")
    seen = torch.randn(2, 3, 32, 32)
    assert torch.equal(as_a_user(done.folder)(seen), theirs(seen))
    assert "the teacher of the file dino.pth" in (done.folder / "README.md").read_text()


def test_the_network_of_a_file_can_be_named(tmp_path):
    theirs = timm.create_model("test_vit", num_classes=0).eval()
    torch.save(theirs.state_dict(), tmp_path / "mine.pth")
    done = export(tmp_path / "mine.pth", architecture="test_vit")
    seen = torch.randn(2, 3, 160, 160)
    assert torch.equal(as_a_user(done.folder)(seen), theirs(seen))


def test_a_file_in_a_run_is_not_the_run(make_run, tmp_path):
    run = make_run()
    torch.save(timm.create_model("test_resnet", num_classes=0).state_dict(), run / "other.pth")
    done = export(run / "other.pth", architecture="test_resnet")
    assert done.folder == run / "other-backbone-timm"


def test_a_networks_folder_belongs_to_its_run(make_run, tmp_path):
    run = make_run(recipe="name: mine\ndata: {train: Textures}\n")
    done = export(run / "student", "hf")
    assert (done.folder, done.network) == (tmp_path / "run-student-hf", "student")
    assert "name: mine" in (done.folder / "README.md").read_text()


@pytest.mark.parametrize("name", ["raw-pixels", "timm:test_vit", "run"])
def test_a_folder_is_a_folder_whatever_its_name(name, make_run, tmp_path, monkeypatch):
    make_run(name=name)
    monkeypatch.chdir(tmp_path)
    assert sslkit.export(name).folder == tmp_path / f"{name}-teacher-timm"


@pytest.mark.parametrize(
    ("run", "arguments", "error", "said"),
    [
        ("nowhere", {}, SSLKitError, "nowhere does not exist. RUN is a run folder"),
        ("empty", {}, SSLKitError, "empty holds neither a run nor a backbone"),
        ("young", {}, SSLKitError, "this run has not saved its networks yet"),
        ("run", {"network": "techer"}, UnknownName, "unknown network 'techer'. Did you mean 'teacher'"),
        ("run", {"to": "onx"}, UnknownName, "--to: unknown target 'onx'. Did you mean 'onnx'"),
        ("damaged", {}, SSLKitError, "damaged/teacher: cannot load this backbone"),
    ],
)
def test_a_bad_run_is_named(run, arguments, error, said, make_run, tmp_path):
    make_run()
    damaged = make_run(name="damaged") / "teacher" / "model.safetensors"
    damaged.write_bytes(damaged.read_bytes()[:1000])
    (tmp_path / "empty").mkdir()
    (tmp_path / "young").mkdir()
    (tmp_path / "young" / "recipe.yaml").write_text("seed: 1\n")
    with pytest.raises(error, match=said):
        export(tmp_path / run, **arguments)
