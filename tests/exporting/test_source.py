"""What can be exported, and what is named where it cannot."""

import pytest
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
