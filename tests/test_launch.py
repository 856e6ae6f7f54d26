"""What `sslkit train` says before the first step, and which run it goes on with."""

import json
import shutil
from io import StringIO
from pathlib import Path

import pytest
from pictures import fill
from rich.console import Console
from safetensors.torch import load_file

from sslkit import plugins
from sslkit.errors import SSLKitError
from sslkit.launch import train
from sslkit.recipe import load

PLUGIN = '''
import torch
from torch import nn

from sslkit import Backbone, Features


class Mean(Backbone):
    """The mean of an image's pixels, and a linear layer."""

    embed_dim = 4

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 4)

    def forward(self, images, mask=None):
        return Features(self.linear(images.mean((2, 3))))

    def save(self, folder, statistics=None):
        folder.mkdir(exist_ok=True)
'''

RECIPE = """\
method:
  backbone: Mean
  head: {DINOHead: {num_prototypes: 4, hidden_dim: 4, embed_dim: 2}}
  teacher: {EMA: {momentum: 0.5}}
  collapse: {Centering: {temperature: 0.04}}
  loss: CrossEntropy
views: {MultiCrop: {crop_on: device, canvas_size: 8, global_size: 8, num_local_views: 0}}
data: {train: {Textures: {num_images: 32, size: 8}}, mean: [0.5, 0.5, 0.5], std: [0.25, 0.25, 0.25]}
optimization: {optimizer: AdamW, batch_size: 8, epochs: 1, lr: 1e-3}
runtime: {device: cpu, num_workers: 0, threads: 1}
"""


@pytest.fixture
def trained(tmp_path):
    """Return a function that trains with overrides and returns what was said."""
    (tmp_path / "mean.py").write_text(PLUGIN)
    (tmp_path / "small.yaml").write_text(RECIPE)

    def train_recipe(*words, folder="run", resume=False, recipe="small.yaml", width=400):
        console = Console(file=StringIO(), force_terminal=True, width=width, color_system="standard", no_color=False)
        with plugins.using([tmp_path / "mean.py"]):
            train(load(tmp_path / recipe, words), tmp_path / folder, resume, console)
        return console.file.getvalue()

    return train_recipe


def test_a_run_says_first_what_it_is_and_where_it_writes(trained, tmp_path):
    first, second, *_ = trained("--precision", "fp32").splitlines()
    assert first == "small · 32 images, 4 steps of 8 · cpu, fp32"
    assert second == f"Run folder: {tmp_path / 'run'}"


def test_warnings_are_wrapped_at_words_and_the_folder_is_not(trained, tmp_path):
    lines = trained("--method.collapse.temperature", "0.08", width=60).splitlines()
    assert f"Run folder: {tmp_path / 'run'}" in lines
    [first] = [i for i, line in enumerate(lines) if "warning: " in line]
    shown = [line.removeprefix("\x1b[33m").removesuffix("\x1b[0m") for line in lines[first : first + 2]]
    assert all(len(line.rstrip()) <= 60 for line in shown)
    assert " ".join(line.strip() for line in shown).startswith(
        "warning: method.collapse: the teacher's temperature starts at 0.08"
    )


def test_warnings_are_said_once_before_the_first_step_and_proposals_are_not(trained):
    said = trained("--method.collapse.temperature", "0.08", "--method.head.num_prototypes", "10")
    [line] = [line for line in said.splitlines() if "warning: " in line]
    assert line == said.splitlines()[2]
    assert line.startswith("\x1b[33mwarning: method.collapse: the teacher's temperature starts at 0.08")
    assert line.endswith("(DINO appendix D)\x1b[0m")
    assert "images each" not in said  # 3 images a prototype is no failure


def test_a_sound_run_says_nothing(trained):
    assert "warning" not in trained()


def test_what_was_found_and_left_out_is_said_first(trained, tmp_path):
    fill(tmp_path / "images", *[f"{'ab'[i % 2]}/{i}.png" for i in range(8)])
    (tmp_path / "images/backup.tar").write_bytes(b"")
    said = trained("--data", str(tmp_path / "images"))
    found = f"data.train: {tmp_path}/images: 8 images of split 'train'; 2 classes; not read: backup.tar"
    # After what the run is and where it writes.
    assert said.splitlines()[2] == found


def test_the_images_are_those_that_are_there(trained):
    """Not the number that the recipe was written for."""
    said = trained("--data.num_images", "4000", "--method.head.num_prototypes", "40")
    assert "warning: method.head: 40 prototypes for 32 images" in said


# A run that an earlier version of a class began

STOP = """

from sslkit.contracts import Callback


class StopAt2(Callback):
    def on_step_end(self, run, metrics):
        run.interrupted = metrics["step"] == 2
"""
LATER = PLUGIN.replace("def __init__(self):", "def __init__(self, momentum: Schedule = Cosine(0.5, 1.0), gain=1.0):")
LATER = LATER.replace(
    "from sslkit import Backbone, Features", "from sslkit import Backbone, Cosine, Features, Schedule"
)
LATER = LATER.replace("return Features(", "return Features(self.gain * ").replace(
    "nn.Linear(3, 4)", "nn.Linear(3, 4)\n        self.gain, self.momentum = gain, momentum"
)


def state(run):
    return load_file(max(run.glob("checkpoints/step-*")) / "state.safetensors")


@pytest.fixture
def begun(trained, tmp_path):
    """Return the folder of a run that was stopped at its second step, before its backbone gained two arguments."""
    (tmp_path / "mean.py").write_text(PLUGIN + STOP)
    trained("--runtime.callbacks", "[StopAt2]")
    trained(folder="whole")
    (tmp_path / "mean.py").write_text(LATER + STOP)
    return tmp_path / "run"


@pytest.mark.parametrize("recipe", ["small.yaml", "run/recipe.yaml"])
def test_a_run_goes_on_though_a_class_has_gained_arguments_since(begun, trained, recipe, tmp_path):
    before = json.loads((begun / "environment.json").read_text())["identity"]
    trained(*(["--runtime.callbacks", "[]"] if "run" in recipe else []), resume=True, recipe=recipe)
    assert json.loads((begun / "environment.json").read_text())["identity"] == before
    expected = state(tmp_path / "whole")
    assert "gain" not in (begun / "recipe.yaml").read_text()
    found = state(begun)
    assert found.keys() == expected.keys()
    assert all((value == expected[name]).all() for name, value in found.items())
    trained(resume=True, recipe=recipe)  # once more, now that both versions have written into it


def test_the_identity_of_a_run_that_an_earlier_version_wrote_stays(tmp_path):
    """The recipe.yaml and identity of a run from before TimmBackbone had ``positions``."""
    shutil.copy(Path(__file__).with_name("begun.yaml"), tmp_path / "recipe.yaml")
    recipe = load(tmp_path / "recipe.yaml")
    assert recipe.identity_in(tmp_path) == "22d1f3a8b91844a2" != recipe.identity()
    same, other = (load(tmp_path / "recipe.yaml", ["--method.backbone.positions", rule]) for rule in ("timm", "dino"))
    assert same.identity_in(tmp_path) == "22d1f3a8b91844a2"
    assert other.identity_in(tmp_path) == other.identity() != recipe.identity()


@pytest.mark.parametrize(
    "words",
    [
        ["--method.backbone.gain", "2.0"],
        ["--method.backbone.momentum", "{Cosine: {start: 0.5, end: 0.9}}"],
        ["--method.head.embed_dim", "3"],
        ["--data.train.num_images", "40"],
        ["--seed", "1"],
    ],
)
def test_a_run_of_another_recipe_is_refused_still(begun, trained, words):
    with pytest.raises(SSLKitError, match="holds the run of another recipe than the one given"):
        trained(*words, resume=True)


def test_a_recipe_that_was_changed_in_its_folder_is_another(begun, trained):
    text = (begun / "recipe.yaml").read_text()
    (begun / "recipe.yaml").write_text(text.replace("embed_dim: 2", "embed_dim: 3"))
    with pytest.raises(SSLKitError, match="holds the run of another recipe"):
        trained("--method.head.embed_dim", "3", resume=True)


@pytest.mark.parametrize("text", ["method: {backbone: Gone}\n", "method: [", ""])
def test_a_recipe_that_cannot_be_read_any_more_belongs_to_no_other(begun, trained, text):
    (begun / "recipe.yaml").write_text(text)
    with pytest.raises(SSLKitError, match="holds the run of another recipe"):
        trained(resume=True)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (["--method.backbone", "{Mean: {}}", "--views.global_size", "99999999"], r"views\.global_size: .* of memory"),
        (["--data.value_range", "[5, 3]"], "value_range"),
        (
            ["--method.backbone", "{TimmBackbone: {name: test_resnet, model_args: {global_pool: ''}}}"],
            r"method\.backbone: test_resnet cannot take images: it returns",
        ),
    ],
)
def test_what_the_first_step_would_refuse_is_refused_before_there_is_a_folder(trained, tmp_path, overrides, said):
    with pytest.raises(SSLKitError, match=said):
        trained(*overrides)
    assert not (tmp_path / "run").exists()
