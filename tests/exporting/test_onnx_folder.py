"""model.onnx gives the run's features at any batch size; what cannot be written is said in one message."""

import json
from dataclasses import asdict

import pytest
import torch
from torch import nn

from sslkit import plugins
from sslkit.backbones.loading import load_model
from sslkit.backbones.raw_pixels import RawPixels
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.cli.export import TARGETS as TARGETS_OF_THE_SCREEN
from sslkit.contracts import Backbone
from sslkit.errors import NotSupported, SSLKitError
from sslkit.exporting import onnx_folder
from sslkit.exporting.agreement import TOLERANCE
from sslkit.exporting.export import TARGETS, export
from sslkit.types import Features, Preprocessing

VIT = {"img_size": 32, "patch_size": 8, "depth": 1, "embed_dim": 48}
STEM = {"layers": [1, 1, 1, 1], "channels": [8, 8, 8, 8]}
CASES = {
    "vit": (
        TimmBackbone("vit_tiny_patch16_224", model_args=VIT),
        Preprocessing(3, [0.4] * 3, [0.2] * 3, None, 32, 36),
    ),
    "positions by DINO's rule at another size than they are stored for": (
        TimmBackbone("vit_tiny_patch16_224", model_args=VIT | {"img_size": 40}, positions="dino"),
        Preprocessing(3, [0.4] * 3, [0.2] * 3, None, 24, 36),
    ),
    "small-image stem, five channels": (
        TimmBackbone("resnet18", in_chans=5, small_image_stem=True, model_args=STEM),
        Preprocessing(5, [0.4] * 5, [0.2] * 5, [0, 10000], 24, 24),
    ),
    "raw pixels": (RawPixels("centered"), Preprocessing(3, [0.4] * 3, [0.2] * 3, None, 40, 40)),
}


class Odd(Backbone):
    """What it returns depends on the values that it sees, which a graph cannot say."""

    embed_dim = 3

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images, mask=None):
        return Features(images.mean((2, 3)) * (self.weight if images.sum().item() > 0 else 2))

    def save(self, folder, preprocessing=None):
        (folder / "config.json").write_text(json.dumps({"sslkit": {"backbone": "Odd"}}))

    @classmethod
    def load(cls, folder):
        return cls()


@pytest.mark.parametrize(("backbone", "preprocessing"), CASES.values(), ids=CASES)
def test_onnx_runtime_gives_the_runs_features(backbone, preprocessing, make_run):
    onnx = pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    run = make_run(preprocessing, teacher=backbone)
    done = export(run, "onnx")
    assert done.difference < TOLERANCE / 5
    assert sorted(path.name for path in done.folder.iterdir()) == ["config.json", "data.json", "model.onnx"]
    graph = onnx.load(done.folder / "model.onnx")
    onnx.checker.check_model(graph, full_check=True)
    assert [(entry.domain, entry.version) for entry in graph.opset_import] == [("", onnx_folder.OPSET)]
    assert json.loads({p.key: p.value for p in graph.metadata_props}["data_statistics"]) == asdict(preprocessing)
    said = json.loads((done.folder / "config.json").read_text())["onnx"]
    session = runtime.InferenceSession(done.folder / "model.onnx")
    for way, found in (("input", session.get_inputs()), ("output", session.get_outputs())):
        assert [(each.name, each.shape) for each in found] == [(said[way]["name"], said[way]["shape"])]
    ours = load_model(str(run)).backbone
    for batch in (1, 7):
        seen = torch.randn(batch, preprocessing.channels, preprocessing.size, preprocessing.size)
        features = torch.from_numpy(session.run(["features"], {"images": seen.numpy()})[0])
        with torch.no_grad():
            torch.testing.assert_close(features, ours(seen).cls, atol=1e-5, rtol=1e-4)
    with pytest.raises(SSLKitError, match="holds a network for ONNX Runtime; take the run"):
        load_model(str(done.folder))


def test_what_a_graph_cannot_say_is_one_message(make_run, tmp_path, monkeypatch):
    pytest.importorskip("onnxscript")
    run = make_run(teacher=Odd())
    registry = plugins.active().registry
    monkeypatch.setattr(registry, "names", lambda kind: ["Odd"])
    monkeypatch.setattr(registry, "get", lambda kind, name: Odd)
    with pytest.raises(NotSupported, match="Odd cannot be written as ONNX: ") as error:
        export(run, "onnx")
    assert "\n" not in str(error.value)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_missing_packages_are_named_with_the_command(make_run, tmp_path, monkeypatch):
    monkeypatch.setattr(onnx_folder, "NEEDED", ("torch", "no_such_onnx", "nor_this"))
    with pytest.raises(NotSupported, match=r"needs no_such_onnx, nor_this: (uv )?pip install no_such_onnx nor_this$"):
        export(make_run(), "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_the_screen_says_the_targets_and_the_opset():
    assert list(TARGETS_OF_THE_SCREEN) == list(TARGETS)
    assert f"opset {onnx_folder.OPSET}," in TARGETS_OF_THE_SCREEN["onnx"]
