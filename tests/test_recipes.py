"""Every recipe in the repository builds and takes a shrunk step."""

from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from sslkit.recipe import load, train
from sslkit.training.log import read_metrics

ROOT = Path(__file__).parents[1]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
TINY_VIT = {"vit_small_patch16_224": "vit_tiny_patch16_224", "vit_base_patch16_224": "vit_tiny_patch16_224"}
SHRUNK = [
    "--optimization.batch_size", "2",
    "--optimization.steps", "1",
    "--runtime.device", "cpu",
    "--runtime.num_workers", "0",
    "--runtime.threads", "1",
    "--evaluation.every", "null",
    "--evaluation.networks", "[teacher]",
    "--evaluation.baselines", "[]",
]  # fmt: skip


def names(paths):
    return [str(path.relative_to(ROOT / "recipes")) for path in paths]


def test_there_are_recipes():
    assert {"quickstart.yaml", "dino-cifar10-tiny.yaml", "dino-vit-small.yaml"} <= {*names(RECIPES)}


def shrunk(path):
    """Return the recipe on a few textures as large as its images, its networks no wider than need be."""
    recipe = load(path)
    channels = recipe.root.at("data.channels")
    size = max(recipe.builder().part("views").sizes)
    textures = f"num_images: 8, size: {size}, channels: {channels}"
    words = [*SHRUNK, "--data.train", f"{{Textures: {{{textures}}}}}"]
    words += ["--data.test", f"{{Textures: {{{textures}, split: test}}}}"]
    backbone = recipe.resolved["method"]["backbone"]
    if name := TINY_VIT.get(backbone.get("TimmBackbone", {}).get("name", "")):
        words += ["--method.backbone.name", name]
    if (recipe.resolved["method"]["head"].get("DINOHead", {}).get("num_prototypes") or 0) > 64:
        words += ["--method.head.num_prototypes", "64"]
    return load(path, words)


@pytest.mark.parametrize("path", RECIPES, ids=names(RECIPES))
def test_every_recipe_resolves_builds_and_takes_a_step(path, tmp_path):
    recipe = shrunk(path)
    assert load(_written(recipe, tmp_path)).resolved == recipe.resolved

    run = train(recipe, tmp_path / "run", console=Console(file=StringIO()))
    assert run.clock.step == 1
    [row] = read_metrics(run.folder.metrics)
    assert row["loss"] > 0
    evaluators = run.parts.evaluation.evaluators
    assert [row["network"] for row in run.results] == ["teacher"] * len(evaluators)
    assert (run.folder.path / "teacher" / "model.safetensors").exists()


def _written(recipe, folder):
    (folder / "resolved.yaml").write_text(recipe.to_yaml())
    return folder / "resolved.yaml"
