"""What `sslkit train` says before the first step."""

from io import StringIO

import pytest
from rich.console import Console

from sslkit import plugins
from sslkit.recipe import load, train

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

    def train_recipe(*words, folder="run", resume=False):
        console = Console(file=StringIO(), force_terminal=True, width=60, color_system="standard", no_color=False)
        with plugins.using([tmp_path / "mean.py"]):
            train(load(tmp_path / "small.yaml", words), tmp_path / folder, resume, console)
        return console.file.getvalue()

    return train_recipe


def test_warnings_are_said_once_before_the_first_step_and_proposals_are_not(trained):
    said = trained("--method.collapse.temperature", "0.08", "--method.head.num_prototypes", "10")
    [line] = [line for line in said.splitlines() if "warning" in line]  # not wrapped
    assert line == said.splitlines()[0]
    assert line.startswith("\x1b[33mwarning: method.collapse: the teacher's temperature starts at 0.08")
    assert line.endswith("(DINO appendix D)\x1b[0m")
    assert "images each" not in said  # 3 images a prototype is no failure


def test_a_sound_run_says_nothing(trained):
    assert "warning" not in trained()


def test_the_images_are_those_that_are_there(trained):
    """Not the number that the recipe was written for."""
    said = trained("--data.num_images", "4000", "--method.head.num_prototypes", "40")
    assert "warning: method.head: 40 prototypes for 32 images" in said
