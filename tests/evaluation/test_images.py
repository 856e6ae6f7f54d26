"""What evaluators are given: batches of views and labels."""

import logging
import os
import signal

import pytest
import torch
from squares import Squares
from torch import Tensor

from sslkit.errors import DataError
from sslkit.evaluation.images import evaluation_data, labelled
from sslkit.types import Preprocessing


def as_float(image: Tensor) -> Tensor:
    return image.float()


def contents(part):
    batches = list(part.batches())
    images = torch.cat([images[:, 0, 0, 0] for images, _ in batches]).int().tolist()
    return images, [labels for _, labels in batches]


def test_batches_hold_views_and_labels_in_order():
    part = labelled(Squares(7, torch.tensor([0, 1, 2, 0, 1, 2, 9])), as_float, batch_size=3)
    assert (part.name, part.num_images, part.num_classes) == ("squares", 7, 4)
    for _ in range(2):
        images, labels = contents(part)
        assert images == list(range(7))
        assert torch.cat(labels).tolist() == [0, 1, 2, 0, 1, 2, 9]


def test_workers_read_the_same():
    source = Squares(9, torch.arange(9), damaged=(4,))
    images, labels = contents(labelled(source, as_float, batch_size=2, num_workers=1))
    assert images == [0, 1, 2, 3, 5, 6, 7, 8]
    assert torch.cat(labels).tolist() == images


@pytest.mark.parametrize("labels", [None, torch.full((4,), -1)])
def test_images_without_labels(labels):
    part = labelled(Squares(4, labels), as_float)
    assert part.num_classes is None
    assert contents(part)[1] == [None]


def test_a_limit_takes_the_same_images_in_order_and_misses_no_class_of_a_periodic_source():
    images, _ = contents(labelled(Squares(80), as_float, limit=40))
    assert images == contents(labelled(Squares(80), as_float, limit=40))[0] == sorted(set(images))
    # Every second image would be even alone; the images of the package's own textures come in such a period.
    assert len(images) == 40
    assert {image % 8 for image in images} == set(range(8))
    assert contents(labelled(Squares(3), as_float, limit=4))[0] == [0, 1, 2]


def test_unreadable_images_are_left_out_counted_and_named_once(caplog):
    part = labelled(Squares(6, torch.arange(6), damaged=(0, 1, 4), name="photos"), as_float, batch_size=2)
    with caplog.at_level(logging.WARNING, "sslkit.evaluation"):
        for _ in range(2):
            images, labels = contents(part)
    assert images == [2, 3, 5] == torch.cat(labels).tolist()
    (message,) = caplog.messages
    assert message.startswith("photos: 3 unreadable images left out: 0.png: truncated; 1.png")


def test_images_with_numbers_that_are_not_finite_are_left_out_by_name(caplog):
    """One of them would make the similarity to every other image NaN, and k-NN of every model 0."""

    def view(image):
        return as_float(image) / (image.float().mean() != 2)  # the third image becomes infinite

    part = labelled(Squares(4, torch.arange(4), name="photos"), view, batch_size=2)
    with caplog.at_level(logging.WARNING, "sslkit.evaluation"):
        assert torch.cat([labels for _, labels in part.batches()]).tolist() == [0, 1, 3]
    assert caplog.messages == [
        "photos: 1 unreadable images left out: photos, image 2: it has pixels that are not finite"
    ]


def test_nothing_readable_is_an_error():
    with pytest.raises(DataError, match=r"none of 2 images can be read.*0\.png: truncated"):
        list(labelled(Squares(2, damaged=(0, 1)), as_float).batches())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_readers_leave_interruptions_to_whoever_evaluates(number):
    class Interrupting(Squares):
        def read(self, index):
            if os.getpid() != parent:
                os.kill(os.getpid(), number)
            return super().read(index)

    parent = os.getpid()
    batches = labelled(Interrupting(3), as_float, batch_size=2, num_workers=1).batches()
    assert [len(images) for images, _ in batches] == [2, 1]


ANIMALS = Squares(6, torch.arange(6) % 3, name="animals", class_names=["ant", "bee", "cat"])


PLAIN = Preprocessing(3, (0.5,) * 3, (0.5,) * 3, None, size=4, resize=4)


def test_classes_meet_by_name_where_two_folders_number_them_apart():
    test = Squares(4, torch.tensor([1, 0, 1, -1]), name="others", class_names=["ant", "cat"])
    data = evaluation_data(ANIMALS, test, PLAIN, batch_size=9)
    assert contents(data.train)[1][0].tolist() == [0, 1, 2, 0, 1, 2]
    assert contents(data.test)[1][0].tolist() == [2, 0, 2, -1]
    assert test.labels.tolist() == [1, 0, 1, -1]
    limited = evaluation_data(ANIMALS, test, PLAIN, batch_size=9, limit=2).test
    ((images, labels),) = limited.batches()
    numbers = ((images[:, 0, 0, 0] * 0.5 + 0.5) * 255).round().int().tolist()
    assert labels.tolist() == [[2, 0, 2, -1][number] for number in numbers]


def test_numbers_count_where_a_source_has_no_class_names():
    data = evaluation_data(ANIMALS, Squares(2, torch.tensor([7, 0])), PLAIN)
    assert contents(data.test)[1][0].tolist() == [7, 0]


def test_a_class_that_training_does_not_know_is_named():
    test = Squares(3, torch.tensor([0, 1, 1]), name="others", class_names=["ant", "bea", "unused"])
    with pytest.raises(DataError, match=r"others: the class 'bea' is unknown to animals\. Did you mean 'bee'\?"):
        evaluation_data(ANIMALS, test, PLAIN)


@pytest.mark.parametrize("num_workers", [0, 1])
def test_what_the_view_refuses_is_one_message(num_workers):
    preprocessing = Preprocessing(4, (0.5,) * 4, (0.5,) * 4, None, size=4, resize=4)
    data = evaluation_data(Squares(2), Squares(2), preprocessing, num_workers=num_workers)
    with pytest.raises(
        DataError, match=r"^squares, image 0: an image has 3 channels, the views were built for 4: see data\.channels$"
    ):
        contents(data.train)
