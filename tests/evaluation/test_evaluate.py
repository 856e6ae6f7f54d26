import json
import logging

import pytest
import torch
from squares import Squares

from sslkit.backbones.raw_pixels import RawPixels
from sslkit.contracts import Evaluator
from sslkit.evaluation.evaluate import evaluate
from sslkit.evaluation.images import evaluation_data
from sslkit.evaluators.knn import KNN
from sslkit.types import Preprocessing


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
