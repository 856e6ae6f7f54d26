"""A tiny recipe, and a terminal of one width."""

from pathlib import Path

import pytest

from sslkit.cli.main import main

TINY = str(Path(__file__).parents[1] / "tiny_parts.py")

RECIPE = """\
# A tiny recipe.
method:
  backbone: TinyBackbone
  head: TinyHead
  teacher: {TinyTeacher: {momentum: 0.99}}
  collapse: {TinyOperator: {temperature: {Warmup: {start: 0.1, end: 0.2, over: 3 epochs}}}}
  loss: TinyLoss
views: TinyViews
data: {train: {TinyImages: {num_images: 64}}}
optimization: {optimizer: TinyOptimizer, batch_size: 8, epochs: 2, lr: 1e-3, lr_reference_batch: 4}
"""


@pytest.fixture(autouse=True)
def _wide(monkeypatch):
    monkeypatch.setenv("COLUMNS", "110")


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(RECIPE)
    return str(file)


DINO = """\
method:
  backbone: {TinyBackbone: {patch_size: null}}
  head: {DINOHead: {num_prototypes: 64, hidden_dim: 8, embed_dim: 4, batch_norm: true}}
  teacher: {EMA: {momentum: {Cosine: {start: 0.99, end: 1}}}}
  collapse: {Centering: {temperature: 0.04}}
  loss: CrossEntropy
views: {MultiCrop: {crop_on: device, canvas_size: 40, global_size: 32, num_local_views: 0}}
data: {train: Textures, num_images: 4000}
optimization: {optimizer: AdamW, batch_size: 40, epochs: 20, lr: 1e-3}
precision: fp32
"""


@pytest.fixture
def dino(tmp_path):
    (tmp_path / "dino.yaml").write_text(DINO)
    return str(tmp_path / "dino.yaml")


@pytest.fixture
def explained(capsys):
    """Return a function that explains and returns what was printed, lines rejoined."""

    def explain(*words, code=0):
        plugin = [] if TINY in words else ["--plugin", TINY]
        assert main(["explain", *plugin, *words]) == code
        found = capsys.readouterr()
        return " ".join((found.out + found.err).split())

    return explain
