"""A backbone is tried before a run, on tensors without values, and nothing of it or of the random generators moves."""

import logging
import multiprocessing
import sys

import pytest
import torch
from torch import nn

from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.backbones.trial import Trial, check_size, without_values
from sslkit.contracts import Backbone
from sslkit.errors import RecipeError
from sslkit.types import Features

NARROW = {"layers": [1, 1, 1, 1], "channels": [4, 4, 4, 4], "stem_type": "deep", "stem_width": 4}


class Odd(Backbone):
    """The mean of an image, by way of what tensors without values cannot do, or with a fault."""

    embed_dim = 3

    def __init__(self, fault=""):
        super().__init__()
        self.norm = nn.BatchNorm2d(3)
        self.fault = fault

    def forward(self, images, mask=None):
        vector = self.norm(images).mean((2, 3)) + torch.rand(3)
        if self.fault == "reads a value" and vector.sum().item() > 1e9:
            return Features(vector)
        if self.fault == "other class":
            return vector
        return Features(vector[:, :2] if self.fault == "narrow" else vector)


def test_the_copy_has_shapes_and_no_values():
    network = nn.Sequential(nn.Linear(3, 5), nn.BatchNorm1d(5))
    assert without_values(network)(torch.empty(10**9, 3, device="meta")).shape == (10**9, 5)
    assert network[1].num_batches_tracked == 0


@pytest.mark.parametrize("fault", ["", "reads a value"])
def test_a_trial_changes_nothing(fault):
    backbone, state = Odd(fault), torch.get_rng_state()
    check_size("views.size", backbone, 8, 3)
    assert torch.equal(torch.get_rng_state(), state)
    assert (backbone.norm.num_batches_tracked, backbone.norm.running_mean.abs().sum()) == (0, 0)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("other class", r"method\.backbone: Odd .* it returns Tensor, not Features"),
        ("narrow", r"method\.backbone: Odd .* \(2, 2\) for 2 images, not one vector of 3"),
    ],
)
def test_an_output_that_is_not_one_vector_an_image_is_refused(fault, said):
    with pytest.raises(RecipeError, match=said):
        check_size("views.size", Odd(fault), 8, 3)


@pytest.mark.forks
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
def test_a_process_that_is_forked_after_a_trial_can_train():
    def train():
        backbone(torch.ones(2, 3, 8, 8)).cls.sum().backward()

    backbone = Odd()
    check_size("views.size", backbone, 8, 3)
    train()
    child = multiprocessing.get_context("fork").Process(target=train)
    child.start()
    child.join(20)
    assert child.exitcode == 0


def test_a_network_that_cannot_be_copied_is_taken():
    class Fails(nn.Module):
        def forward(self, images):
            raise AssertionError

        def __deepcopy__(self, memo):
            raise TypeError

    assert Trial(Fails()).failure(2, 3) is None


@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("levit_128s", 96, ["224"]),
        ("mixer_s32_224", 96, ["224"]),
        ("maxvit_rmlp_pico_rw_256", 224, ["256"]),
        ("cait_xxs24_224", 96, ["224"]),
    ],
)
def test_a_size_that_a_model_cannot_take_is_refused_with_those_that_it_takes(name, size, options, caplog):
    with caplog.at_level(logging.ERROR), pytest.raises(RecipeError) as error:
        check_size("views.local_size", TimmBackbone(name), size, 3)
    first, *rest = str(error.value).splitlines()
    assert first.startswith(f"views.local_size: {name} cannot take images of {size} px: ")
    assert [line.split()[-1] for line in rest] == options
    assert not caplog.records


@pytest.mark.parametrize(
    ("model_args", "said"),
    [
        ({**NARROW, "layers": [1, 1, 1]}, "has no attribute 'layer4'. .*model_args null drops them"),
        ({**NARROW, "global_pool": ""}, r"it returns \(2, 4, 1, 1\) for 2 images, not one vector of 4 for each"),
    ],
)
def test_a_model_that_takes_no_image_is_refused_by_its_arguments(model_args, said):
    with pytest.raises(RecipeError, match=rf"method\.backbone: resnet18 cannot take images: .*{said}"):
        check_size("views.global_size", TimmBackbone("resnet18", model_args=model_args), 32, 3)
