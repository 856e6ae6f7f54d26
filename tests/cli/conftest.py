"""A tiny recipe, and a terminal of one width."""

import pytest

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
