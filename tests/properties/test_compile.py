"""A compiled run through the command line: stopped, resumed, exported, and nowhere a name that torch.compile makes."""

import json

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from sslkit.cli.main import main
from sslkit.run_folder.metrics_log import read_metrics

pytestmark = pytest.mark.long

RECIPE = """\
method:
  backbone: {TimmBackbone: {name: resnet18, model_args: {layers: [1, 1, 1, 1], channels: [4, 4, 4, 6]}}}
  head: {DINOHead: {num_prototypes: 12, hidden_dim: 8, embed_dim: 6, num_layers: 2}}
  teacher: EMA
  collapse: Centering
  loss: CrossEntropy
views: {MultiCrop: {crop_on: device, canvas_size: 32, global_size: 32, num_local_views: 1, local_size: 16}}
data: {train: {Textures: {num_images: 16, size: 32}}, test: {Textures: {num_images: 16, size: 32, split: test}}}
optimization: {optimizer: AdamW, batch_size: 8, epochs: 2, lr: 0.01}
precision: fp32
runtime: {device: cpu, threads: 1, num_workers: 0, log_every: 1, checkpoint_every: 2 steps, on_collapse: ignore}
evaluation: {evaluators: [{KNN: {k: [5]}}]}
"""
STOP = """\
from sslkit.contracts import Callback


class Stop(Callback):
    def on_step_end(self, run, metrics):
        if metrics["step"] == 2:
            run.interrupted = True
"""


@pytest.fixture(autouse=True)
def _compile_here(monkeypatch):
    monkeypatch.setenv("TORCHINDUCTOR_COMPILE_THREADS", "1")


def test_a_compiled_run(tmp_path):
    recipe, plugin, run, out = (tmp_path / name for name in ("tiny.yaml", "stop.py", "run", "exported"))
    recipe.write_text(RECIPE)
    plugin.write_text(STOP)

    def train(*words, compiled="true", folder=run):
        return main(["train", str(recipe), "--run-dir", str(folder), "--runtime.compile", compiled, *words])

    assert train("--plugin", str(plugin), "--runtime.callbacks", "[Stop]") == 130
    assert train("--resume") == 0
    assert train(compiled="false", folder=tmp_path / "eager") == 0

    rows, eager = (read_metrics(folder / "metrics.jsonl") for folder in (run, tmp_path / "eager"))
    assert [row["step"] for row in rows] == [1, 2, 3, 4]
    assert [row["loss"] for row in rows] == pytest.approx([row["loss"] for row in eager], rel=1e-3)
    assert {row["network"] for row in json.loads((run / "results.json").read_text())} == {"teacher", "student"}

    files = sorted(run.rglob("*.safetensors"))
    assert len(files) == 4  # two checkpoints, two backbones
    for file in files:
        other = tmp_path / "eager" / file.relative_to(run)
        with safe_open(file, "pt") as ours, safe_open(other, "pt") as theirs:
            assert {*ours.keys()} == {*theirs.keys()}

    assert main(["export", str(run), "--out", str(out)]) == 0
    model = timm.create_model(f"local-dir:{out}", pretrained=True, num_classes=0)
    weights = load_file(run / "teacher" / "model.safetensors")
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
