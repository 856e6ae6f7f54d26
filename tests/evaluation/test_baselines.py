"""What baselines cost, and which are measured without being asked for."""

import pytest
import torch
from torch import nn

from sslkit.backbones.loading import LoadedModel
from sslkit.backbones.raw_pixels import RawPixels
from sslkit.backbones.timm_backbone import TimmBackbone
from sslkit.contracts import Backbone
from sslkit.evaluation.baselines import (
    ALWAYS_CHEAP_SECONDS,
    CHEAP_SECONDS,
    EvaluationCost,
    baselines_of,
    cheap,
    left_out,
)
from sslkit.types import Features, Preprocessing


class Linear(Backbone):
    """3 x size x size pixels to 10 features, by one matrix."""

    def __init__(self, size=8):
        super().__init__()
        self.embed_dim, self.in_chans = 10, 3
        self.layer = nn.Linear(3 * size * size, 10)

    def forward(self, images, mask=None):
        return Features(self.layer(images.flatten(1)))


def cost(num_train=1000, num_test=100, size=8, workers=0, device="cpu"):
    preprocessing = Preprocessing(3, [0.5] * 3, [0.5] * 3, None, size, size)
    return EvaluationCost(num_train, num_test, preprocessing, torch.device(device), workers)


def test_the_operations_of_a_network_are_counted_and_change_nothing():
    backbone = Linear()
    before, mode, random = backbone.layer.weight.clone(), backbone.training, torch.get_rng_state()
    assert cost().forward_operations(backbone) == 2 * 192 * 10
    assert torch.equal(backbone.layer.weight, before)
    assert backbone.layer.weight.grad is None
    assert backbone.training is mode
    assert torch.equal(torch.get_rng_state(), random)


def test_a_compiled_network_counts_like_another_and_is_not_compiled_for_it():
    def refused(module, inputs):
        pytest.fail("compiled")

    backbone = Linear()
    backbone.compile(backend=refused)
    assert cost().forward_operations(backbone) == 2 * 192 * 10


def test_images_operations_and_pairs_take_time():
    reading = 1100 * (2e-4 + 1e-7 * 64)
    assert cost().evaluation(0, 0) == pytest.approx(reading)
    assert cost(workers=4).evaluation(0, 0) == pytest.approx(reading / 4)
    assert cost().evaluation(1e6, 50) == pytest.approx(reading + (1100 * 1e6 + 2 * 50 * 1000 * 100) / 5e10)
    assert cost(device="cuda").evaluation(1e9, 0) == pytest.approx(reading + 1100 * 1e9 / 1e13)


def test_raw_pixels_are_three_evaluations():
    costs = cost().baselines({"raw-pixels": RawPixels(), "untrained": Linear()})
    assert costs["raw-pixels"] == 3 * cost().evaluation(0, 3072)
    assert costs["untrained"] == cost().evaluation(2 * 192 * 10, 10)


def test_a_network_is_compared_with_pixels_and_with_its_architecture_untrained():
    torch.manual_seed(1)
    backbone = TimmBackbone("test_vit").eval()
    random = torch.get_rng_state()
    found = baselines_of(LoadedModel(backbone, cost().preprocessing, "teacher"))
    assert torch.equal(torch.get_rng_state(), random)
    assert [model.network for models in found.values() for model in models] == [
        "raw-pixels (plain)", "raw-pixels (centered)", "raw-pixels (gray-centered)", "untrained",
    ]  # fmt: skip
    [untrained] = found["untrained"]
    theirs, ours = untrained.backbone.named_weights(), backbone.named_weights()
    assert {name: value.shape for name, value in theirs.items()} == {name: v.shape for name, v in ours.items()}
    assert not torch.equal(theirs["patch_embed.proj.weight"], ours["patch_embed.proj.weight"])
    assert not untrained.backbone.training


@pytest.mark.parametrize(
    ("backbone", "network", "names"),
    [
        (RawPixels(), "raw-pixels (plain)", []),
        (TimmBackbone("test_vit"), "untrained:test_vit", ["raw-pixels"]),
        (Linear(), "teacher", ["raw-pixels"]),  # nobody knows how it is drawn
    ],
)
def test_what_is_a_baseline_itself_needs_fewer(backbone, network, names):
    assert [*baselines_of(LoadedModel(backbone, cost().preprocessing, network))] == names


def test_cheap_is_a_few_seconds_and_a_small_share_of_the_run():
    costs = {"raw-pixels": CHEAP_SECONDS, "untrained": CHEAP_SECONDS + 0.1}
    assert cheap(costs) == ["raw-pixels"]
    assert cheap(costs, run=19.9 * CHEAP_SECONDS) == []
    assert cheap(costs, run=20.1 * CHEAP_SECONDS) == ["raw-pixels"]
    # A trial of a few steps.
    assert cheap({"raw-pixels": ALWAYS_CHEAP_SECONDS, "untrained": ALWAYS_CHEAP_SECONDS + 0.1}, run=1) == ["raw-pixels"]


def test_what_is_left_out_says_its_cost_and_how_to_ask():
    costs = {"raw-pixels": 240.0, "untrained": 0.2}
    assert left_out(costs, [], "--evaluation.baselines '[...]'") == (
        "note: not measured: raw-pixels (about 4 min) and untrained (about 1 s). "
        "To compare with them: --evaluation.baselines '[...]'"
    )
    assert "untrained" not in left_out(costs, ["untrained"], "")
    assert left_out(costs, [*costs], "") == ""
