"""Test labels are given the numbers of the training classes."""

from types import SimpleNamespace

import pytest
import torch

from sslkit.data.classes import labels_as_in_training
from sslkit.errors import DataError


def source(names, labels, name="birds"):
    return SimpleNamespace(class_names=names, labels=None if labels is None else torch.tensor(labels), name=name)


def test_classes_meet_by_name():
    train, test = source(["a", "b", "c"], [0, 1, 2]), source(["c", "a"], [0, 1, 0, -1])
    assert labels_as_in_training(train, test).tolist() == [2, 0, 2, -1]
    assert test.labels.tolist() == [0, 1, 0, -1]


@pytest.mark.parametrize(
    ("train", "test", "expected"),
    [
        (source(None, [0]), source(["b"], [0]), [0]),
        (source(["a"], [0]), source(None, [3]), [3]),
        (source(["a"], None), source(["b"], [0]), [0]),
        (source(["a"], [0]), source(["b"], None), None),
    ],
)
def test_without_names_the_numbers_count(train, test, expected):
    found = labels_as_in_training(train, test)
    assert (None if found is None else found.tolist()) == expected


def test_a_class_that_training_does_not_name_is_named_unless_no_image_has_it():
    train = source(["ant", "bee"], [0, 1])
    assert labels_as_in_training(train, source(["ant", "cat"], [0, 0])).tolist() == [0, 0]
    with pytest.raises(DataError, match=r"(?s)bes.*bee"):
        labels_as_in_training(train, source(["bes", "ant"], [0, 1]))
