import pytest
import torch
from torch import nn

from sslkit.contracts import Backbone
from sslkit.errors import DataError, NotFinite
from sslkit.evaluators.features import extract, frozen
from sslkit.types import Features, LabelledImages


class Normed(Backbone):
    embed_dim = 3

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(3)
        self.still = nn.Dropout().eval()

    def forward(self, images, mask=None):
        return Features(self.norm(images.mean((2, 3))))


def images_of(*batches, labels=True):
    def start():
        for i, images in enumerate(batches):
            yield images, torch.full((len(images),), i) if labels else None

    return LabelledImages("some images", start, sum(map(len, batches)), len(batches) if labels else None)


def test_features_come_in_order_in_eval_mode_and_modes_are_restored():
    backbone = Normed().train()
    backbone.still.eval()
    first, second = torch.randn(4, 3, 2, 2), torch.randn(1, 3, 2, 2)
    features, labels = extract(backbone, images_of(first, second))
    expected = torch.cat([first, second]).mean((2, 3)) / (1 + 1e-5) ** 0.5  # running mean 0 and variance 1
    torch.testing.assert_close(features, expected)
    assert labels.tolist() == [0, 0, 0, 0, 1]
    assert not features.requires_grad
    assert (backbone.training, backbone.norm.training, backbone.still.training) == (True, True, False)
    assert backbone.norm.num_batches_tracked == 0


def test_modes_are_restored_after_an_error():
    backbone = Normed().train()

    def broken():
        yield torch.randn(2, 3, 2, 2), torch.zeros(2)
        raise DataError("disk on fire")

    with pytest.raises(DataError, match="disk on fire"):
        extract(backbone, LabelledImages("broken", broken, 4, 1))
    assert backbone.norm.training
    assert torch.is_grad_enabled()


def test_half_precision_features_become_float32_and_double_stays():
    images = torch.randn(2, 3, 2, 2)
    assert extract(Normed().bfloat16(), images_of(images.bfloat16()))[0].dtype == torch.float32
    assert extract(Normed().double(), images_of(images.double()))[0].dtype == torch.float64


def test_no_labels_and_no_images_are_errors():
    with pytest.raises(DataError, match="some images: these images have no labels"):
        extract(Normed(), images_of(torch.randn(2, 3, 2, 2), labels=False))
    with pytest.raises(DataError, match="there are no images"):
        extract(Normed(), images_of())


def test_frozen_means_no_gradient():
    backbone = Normed()
    with frozen(backbone):
        assert not backbone(torch.randn(2, 3, 1, 1)).cls.requires_grad


class Broken(Backbone):
    """Features of which some are not finite, with or without weights that are."""

    embed_dim = 1

    def __init__(self, weight=1.0):
        super().__init__()
        self.register_buffer("weight", torch.tensor(weight))

    def forward(self, images, mask=None):
        return Features((images.flatten(1) * self.weight).exp())


@pytest.mark.parametrize(
    ("weight", "images", "message"),
    [
        (1.0, torch.full((5, 1, 1, 1), 1e4), "the features of 5 images are not finite: its weights are finite, so"),
        (float("nan"), torch.ones(3, 1, 1, 1), "the features of 3 images are not finite: the backbone's weight is not"),
    ],
)
def test_features_that_are_not_finite_are_refused_by_name(weight, images, message):
    labelled = LabelledImages("birds", lambda: iter([(images, torch.zeros(len(images)).long())]), len(images), 1)
    with pytest.raises(NotFinite, match=f"birds: {message}"):
        extract(Broken(weight), labelled)
