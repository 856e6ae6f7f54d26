"""DINO's weighted k-NN, image by image (eval_knn.knn_classifier)."""

import pytest
import torch
from torch.nn import functional as F

from sslkit.evaluators.knn import KNN
from sslkit.types import EvaluationData, LabelledImages

TRACE = "g_knn"
KS = (1, 5, 10, 20, 100)


def labelled(name, features, labels):
    """Return features as images (N, F, 1, 1) of one batch."""
    images = features[..., None, None]
    return LabelledImages(name, lambda: iter([(images, labels)]), len(images), len(labels.unique()))


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_every_image(temperature, trace, given):
    recorded = trace(TRACE)
    train, tests, labels = (recorded[name] for name in ("train_features", "test_features", "test_labels"))
    bank = labelled("train", train, recorded["train_labels"])
    evaluator, backbone = KNN(KS, temperature), given.Backbone(train.shape[1])
    found = [
        dict(evaluator.run(backbone, EvaluationData(bank, labelled("one", tests[i : i + 1], labels[i : i + 1]))))
        for i in range(len(tests))
    ]
    for k in KS:
        case = f"k{k}_T{temperature:g}"
        assert [each[f"knn/top1@{k}"] == 100 for each in found] == recorded[f"correct1/{case}"].tolist()
        if k < 5:
            continue
        # With fewer than five classes among the neighbours the reference's five come of an unstable sort.
        defined = recorded[f"top5_defined/k{k}"]
        ours = torch.tensor([each[f"knn/top5@{k}"] == 100 for each in found])
        assert defined.any()
        assert torch.equal(ours[defined], recorded[f"correct5/{case}"][defined])


@pytest.mark.parametrize("temperature", [0.07, 0.5])
def test_all_images_together(temperature, trace, agrees, given):
    recorded = trace(TRACE)
    parts = [labelled(p, recorded[f"{p}_features"], recorded[f"{p}_labels"]) for p in ("train", "test")]
    found = dict(KNN(KS, temperature).run(given.Backbone(24), EvaluationData(*parts)))
    for k in KS:
        said = recorded.json["cases"][f"k{k}_T{temperature:g}"]
        agrees(TRACE, "top-1 accuracy", found[f"knn/top1@{k}"], said["top1"], 1e-12)


def test_fewer_classes_than_five_are_no_top5_by_chance(trace, given):
    """A quirk of the reference that is not ours: at k = 1 its five classes hold four that got no vote."""
    recorded = trace(TRACE)
    parts = [labelled(p, recorded[f"{p}_features"], recorded[f"{p}_labels"]) for p in ("train", "test")]
    found = dict(KNN((1,), 0.07).run(given.Backbone(24), EvaluationData(*parts)))
    assert found["knn/top5@1"] == found["knn/top1@1"]


def test_features_need_not_be_normalised_by_the_caller(trace, given):
    """Another: the reference takes the dot product of whatever it is given."""
    recorded = trace(TRACE)
    features = {p: recorded[f"{p}_features"] for p in ("train", "test")}
    long = {p: rows * (1 + rows.norm(dim=1, keepdim=True) % 3) * 5 for p, rows in features.items()}
    unit = {p: F.normalize(rows, dim=1) for p, rows in features.items()}
    answers = [
        dict(
            KNN(KS).run(
                given.Backbone(24), EvaluationData(*(labelled(p, each[p], recorded[f"{p}_labels"]) for p in each))
            )
        )
        for each in (long, unit)
    ]
    assert answers[0] == answers[1]
