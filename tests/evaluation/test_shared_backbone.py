"""Processes evaluate together what one would evaluate alone."""

import json

import torch

from sslkit.backbones.loading import load_model
from sslkit.data.textures import Textures
from sslkit.evaluation.evaluate import evaluate
from sslkit.evaluation.images import evaluation_data
from sslkit.evaluation.shared_backbone import SharedBackbone, shared
from sslkit.evaluators.knn import KNN


def test_every_process_gets_the_answers_of_the_main_one_and_keeps_its_statistics(pair):
    alone = pair.cases.seen_together()
    assert [len(answer) for answer in alone["answers"]] == [7, 1, 4]
    for seen in pair.answers("seen together"):
        for mine, expected in zip(seen["answers"], alone["answers"], strict=True):
            torch.testing.assert_close(mine, expected, rtol=1e-11, atol=1e-13)
        assert seen["statistics kept"]
        assert (seen["meetings"], seen["dim"]) == (3, alone["dim"])


def test_rows_are_those_of_one_process_and_written_once(pair):
    pair.answers("evaluated")
    run = pair.folder / "evaluated"
    rows = json.loads((run / "results.json").read_text())
    pixels = [f"raw-pixels ({variant})" for variant in ("plain", "centered", "gray-centered")]
    networks = [("teacher", step) for step in (1, 2)] + [("student", step) for step in (1, 2)]
    assert sorted((row["network"], row["step"]) for row in rows) == sorted(
        [("untrained", 0), *((name, 0) for name in pixels), *networks]
    )
    train, test = (Textures(num_images=n, size=16, split=split) for n, split in ((300, "train"), (45, "test")))
    for network in ("teacher", "student"):
        model = load_model(str(run), network)
        data = evaluation_data(train, test, model.preprocessing, batch_size=45)
        (alone,) = evaluate(model.backbone, [KNN(k=[5, 20])], data, network=network)
        (last,) = (row for row in rows if (row["network"], row["step"]) == (network, 2))
        assert last["metrics"] == alone["metrics"]


def test_processes_leave_an_evaluation_together(pair):
    assert pair.answers("left together") == [(None, [0, 1], True)] * 2
    assert pair.cases.left_together() == (None, [0, 1], True)


def test_alone_a_network_is_itself(tiny):
    backbone = tiny.Backbone()
    with shared(backbone, lambda: None) as seen:
        assert seen is backbone


def test_one_process_shares_with_nobody(tiny):
    backbone, images = tiny.Backbone().double(), torch.randn(3, 3, 9, 9, dtype=torch.float64)
    assert torch.equal(SharedBackbone(backbone)(images).cls, backbone(images).cls)
