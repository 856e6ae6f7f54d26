"""On CUDA tensors without content: nothing mixes devices, no step waits, one transfer brings what a batch has drawn."""

import importlib.util
from pathlib import Path

import pytest
import torch

from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.losses import CrossEntropy
from sslkit.recipe.files import builtin_recipes
from sslkit.types import Projection

SPEC = importlib.util.spec_from_file_location("fake_cuda", Path(__file__).parents[1] / "fake_cuda.py")
fake_cuda = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(fake_cuda)

# Starts autograd's threads on tensors without content; no forked child may use autograd afterwards (conftest).
RECIPES = sorted(builtin_recipes())


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_step_neither_waits_nor_copies_and_a_logged_one_waits_once(recipe):
    step, logged = fake_cuda.step(recipe)
    assert step.waits == {}
    assert step.copies == {}
    assert sum(logged.waits.values()) == 1, logged.waits
    assert logged.copies == {}


@pytest.mark.parametrize("teacher", ["Copy", "PreviousStep", "PreviousEpoch"])
def test_other_teachers_neither_wait_nor_copy(teacher):
    step, _ = fake_cuda.step("dino-cifar10-tiny", "--method.teacher", teacher, "--views.num_local_views", "3")
    assert (step.waits, step.copies) == ({}, {})


@pytest.mark.parametrize("recipe", RECIPES)
def test_the_views_of_a_batch_take_one_transfer(recipe):
    views = fake_cuda.views(recipe)
    assert views.waits == {}
    assert sum(views.copies.values()) == 1, views.copies


@pytest.mark.parametrize(
    "words",
    [
        ("dino-cifar10-tiny", "--views.num_local_views", "4", "--views.local_size", "16"),
        ("dino-vit-small", "--views.crop_on", "device", "--views.canvas_size", "256", "--views.blur_sigma", "[0.1, 9]"),
        ("swav-cifar10-tiny", "--views.crop_on", "workers", "--views.canvas_size", "null", "--views.flip", "0"),
    ],
)
def test_so_do_other_views(words):
    views = fake_cuda.views(*words)
    assert (views.waits, sum(views.copies.values())) == ({}, 1)


@pytest.mark.parametrize("batches", [1, 4])
def test_knn_waits_as_often_whatever_the_number_of_batches(batches):
    """Once a block of training images for ties, once a pass for features that are not finite, and for three tensors."""
    traffic = fake_cuda.knn(TimmBackbone("test_vit", model_args={"img_size": 32}), batches)
    assert traffic.copies == {}
    assert sum(traffic.waits.values()) == 6, traffic.waits


# The counts can tell.


def step_with(loss, monkeypatch):
    monkeypatch.setattr(CrossEntropy, "forward", loss)
    return fake_cuda.step("dino-cifar10-tiny")[0]


def test_a_number_that_is_read_is_found(monkeypatch):
    def loss(self, student: Projection, targets):
        return student.logits.sum() * student.logits.amax().item()

    step = step_with(loss, monkeypatch)
    assert [line.split(":")[0] for line in step.waits] == ["aten"]
    assert "properties/test_device_traffic.py" in next(iter(step.waits))


def test_a_mask_as_an_index_is_found(monkeypatch):
    with pytest.raises(Exception, match="nonzero"):
        step_with(lambda self, student, targets: student.logits[student.logits > 0].sum(), monkeypatch)


def test_a_list_as_an_index_is_found(monkeypatch):
    step = step_with(lambda self, student, targets: student.logits[[1, 0]].sum(), monkeypatch)
    assert sum(step.copies.values()) == 1


def test_a_tensor_of_the_host_is_found(monkeypatch):
    with pytest.raises(Exception, match="cpu"):
        step_with(
            lambda self, student, targets: (student.logits @ torch.eye(student.logits.shape[-1])).sum(), monkeypatch
        )


def test_a_constant_that_is_carried_is_found(monkeypatch):
    step = step_with(lambda self, student, targets: (student.logits * torch.ones(1).to("cuda")).sum(), monkeypatch)
    assert sum(step.copies.values()) == 1
