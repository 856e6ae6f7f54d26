import json
import logging

import pytest
import torch
from squares import Squares

from sslkit.backbones.raw_pixels import RawPixels
from sslkit.contracts import Backbone, Evaluator
from sslkit.errors import ComponentError
from sslkit.evaluation.evaluate import evaluate
from sslkit.evaluation.images import evaluation_data
from sslkit.evaluators.knn import KNN
from sslkit.types import Features, Preprocessing


class Brightness(Evaluator):
    command = "brightness"
    protocol = "brightness-v1"
    needs_labels = False

    def run(self, backbone, data):
        values = torch.cat([backbone(images).cls for images, _ in data.test.batches()])
        yield "brightness/mean", values.mean().item()


def test_rows_say_what_was_measured():
    preprocessing = Preprocessing(3, (0.5,) * 3, (0.5,) * 3, None, size=4, resize=4)
    train = Squares(8, torch.arange(8) % 2, name="squares train")
    data = evaluation_data(train, Squares(3, torch.arange(3) % 2), preprocessing)
    rows = evaluate(RawPixels(), [KNN(k=(1,)), Brightness()], data, network="teacher", step=12)
    mean = (2 * 1 / 255 - 1.0) * 1.0
    assert rows[1] == {
        "step": 12,
        "network": "teacher",
        "evaluator": "brightness",
        "protocol": "brightness-v1",
        "dataset": "squares",
        "test_images": 3,
        "metrics": {"brightness/mean": pytest.approx(mean)},
    }
    assert (rows[0]["evaluator"], rows[0]["protocol"]) == ("knn", KNN().protocol)
    assert list(rows[0]["metrics"]) == ["knn/top1@1"]
    assert evaluate(RawPixels(), [Brightness()], data, network="x", dataset="mine")[0]["dataset"] == "mine"
    json.dumps(rows)


def test_evaluators_of_labels_skip_unlabelled_images_with_one_line(caplog):
    preprocessing = Preprocessing(3, (0.5,) * 3, (0.5,) * 3, None, size=4, resize=4)
    data = evaluation_data(Squares(4, name="wild"), Squares(4, torch.arange(4)), preprocessing)
    with caplog.at_level(logging.WARNING, "sslkit.evaluation"):
        rows = evaluate(RawPixels(), [KNN(), Brightness()], data, network="teacher")
        evaluate(RawPixels(), [KNN()], evaluation_data(Squares(4), Squares(4), preprocessing), network="teacher")
    assert [row["evaluator"] for row in rows] == ["brightness"]
    assert caplog.messages == ["knn skipped: no labels in wild", "knn skipped: no labels in squares"]


class Careless(Evaluator):
    """Leaves the backbone in another mode, or with other weights."""

    command = "careless"
    protocol = "careless-v1"

    def __init__(self, change):
        self.change = change

    def run(self, backbone, data):
        backbone.eval().requires_grad_(False)
        self.change(backbone)
        yield "careless/one", 1.0


def zero_weights(backbone):
    next(backbone.parameters()).data.zero_()


def run_in_training_mode(backbone):
    backbone.train()(torch.ones(2, 3, 9, 9))


class Normalised(Backbone):
    embed_dim = 3

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm2d(3)

    def forward(self, images, mask=None):
        return Features(self.norm(images).mean((2, 3)))


@pytest.fixture
def images():
    preprocessing = Preprocessing(3, (0.5,) * 3, (0.5,) * 3, None, size=4, resize=4)
    source = Squares(4, torch.arange(4))
    return evaluation_data(source, source, preprocessing)


def test_the_modes_of_a_backbone_are_its_own_after_an_evaluation(images):
    backbone = Normalised().train()
    evaluate(backbone, [Careless(lambda backbone: None)], images, network="teacher")
    assert all(module.training for module in backbone.modules())
    assert all(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize("change", [zero_weights, run_in_training_mode])
def test_an_evaluator_that_changes_the_backbone_is_refused(change, images):
    with pytest.raises(ComponentError, match=r"Careless: run changes the backbone, which is frozen"):
        evaluate(Normalised(), [Careless(change)], images, network="teacher")
