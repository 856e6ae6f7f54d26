"""Test labels are given the numbers of the training classes."""

import logging
from types import SimpleNamespace

import pytest
import torch

from sslkit.data.classes import check_classes, labels_as_in_training
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


@pytest.mark.parametrize("one_folder", [True, False])
def test_a_class_that_differs_in_case_alone_is_refused_however_the_images_are_given(one_folder):
    names = ["Dog", "cat", "dog"]
    train = source(names if one_folder else ["cat", "dog"], [1, 2] if one_folder else [0, 1], "birds train")
    test = source(names if one_folder else ["Dog", "cat"], [0, 1], "birds test")
    with pytest.raises(DataError, match="'Dog'"):
        check_classes(train, test)


def test_a_class_without_training_images_is_a_warning_with_its_images(caplog):
    names = ["ant", "bee", "cat", "dog"]
    with caplog.at_level(logging.WARNING, "sslkit.data"):
        check_classes(source(names, [0, 0], "some train"), source(names, [0, 1, 1, 3, -1], "some test"))
        check_classes(source(names, [0, 1, 2, 3]), source(names, [0, 1, 1, 3]))
        check_classes(source(None, [0]), source(None, [1]))
    assert caplog.messages == [
        "some test: some train has no image of 2 of its classes ('bee', 'dog'), so that 3 test images cannot be right"
    ]
