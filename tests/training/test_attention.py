"""A new run on a CPU under bf16 takes plain products and records that; a run that began keeps what it had."""

from io import StringIO

import pytest
import torch
import yaml
from rich.console import Console

from sslkit.launch import train
from sslkit.recipe import load

RECIPE = """\
method:
  backbone: {TimmBackbone: {name: test_vit, model_args: {img_size: 16, patch_size: 8, depth: 1}}}
  head: {DINOHead: {num_prototypes: 4, hidden_dim: 4, embed_dim: 2}}
  teacher: {EMA: {momentum: 0.5}}
  collapse: {Centering: {temperature: 0.04}}
  loss: CrossEntropy
views: {MultiCrop: {crop_on: device, canvas_size: 16, global_size: 16, num_local_views: 0}}
data: {train: {Textures: {num_images: 16, size: 16}}, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}
optimization: {optimizer: AdamW, batch_size: 8, epochs: 1, lr: 1e-3}
precision: bf16
runtime: {device: cpu, num_workers: 0, threads: 1, log_every: 1}
"""
KEY = "--method.backbone.fused_attention"


@pytest.fixture
def go(tmp_path):
    (tmp_path / "vit.yaml").write_text(RECIPE)

    def train_recipe(*words, folder="run", resume=False, recipe="vit.yaml"):
        return train(load(tmp_path / recipe, words), tmp_path / folder, resume, Console(file=StringIO()))

    return train_recipe


def fused(run):
    """What the networks do, and what the run's recipe says."""
    found = {b.backbone.model.blocks[0].attn.fused_attn for b in (run.model.student, run.model.teacher)}
    written = yaml.safe_load((run.folder.path / "recipe.yaml").read_text())["method"]["backbone"]["TimmBackbone"]
    assert run.model.student.backbone.fused_attention == written["fused_attention"]
    return found, written["fused_attention"]


@pytest.mark.parametrize("init", ["copy", "independent"])
def test_a_new_run_under_bf16_on_a_cpu_takes_plain_products(go, init):
    assert fused(go("--method.init", init)) == ({False}, False)


@pytest.mark.parametrize(
    ("words", "expected"),
    [(["--precision", "fp32"], ({True}, None)), ([KEY, "true"], ({True}, True)), ([KEY, "false"], ({False}, False))],
)
def test_fp32_and_a_recipe_that_says_it_stay(go, words, expected):
    assert fused(go(*words)) == expected


def test_it_gives_what_a_recipe_that_says_it_gives(go):
    open_, said = go(folder="open"), go(KEY, "false", folder="said")
    assert open_.record.identity == said.record.identity
    state = said.model.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in open_.model.state_dict().items())


@pytest.mark.parametrize("recipe", ["vit.yaml", "run/recipe.yaml"])
def test_a_resumed_run_keeps_its_choice(go, recipe):
    first = go("--optimization.steps", "1")
    words = ["--optimization.steps", "1", "--precision", "bf16"]
    again = go(*words, resume=True, recipe=recipe)
    assert fused(again) == ({False}, False)
    assert again.record.identity == first.record.identity


@pytest.mark.parametrize("recipe", ["vit.yaml", "run/recipe.yaml"])
def test_a_run_that_began_with_fused_attention_keeps_it(go, recipe, monkeypatch):
    with monkeypatch.context() as earlier:
        earlier.setattr("sslkit.launch.choose_attention", lambda *_: None)
        first = go()
    assert fused(first) == ({True}, None)
    again = go(resume=True, recipe=recipe)
    assert fused(again) == ({True}, None)
    assert again.record.identity == first.record.identity


def test_networks_without_attention_leave_the_recipe_as_it_is(go):
    resnet = "{TimmBackbone: {name: test_resnet, model_args: null}}"
    run = go("--method.backbone", resnet)
    written = yaml.safe_load((run.folder.path / "recipe.yaml").read_text())["method"]["backbone"]["TimmBackbone"]
    assert written["fused_attention"] is None
