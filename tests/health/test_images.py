"""Images that nothing can be learned from are told, others are not."""

import pytest
import torch

from sslkit.contracts import ImageSource
from sslkit.errors import UnreadableImage
from sslkit.health.images import LOOKED_AT, image_causes
from sslkit.types import Sample


class Images(ImageSource):
    name = "images"

    def __init__(self, images):
        self.images, self.keys, self.reads = images, torch.arange(len(images)), 0

    def read(self, index):
        self.reads += 1
        if self.images[index] is None:
            raise UnreadableImage("an image", "it is damaged")
        return Sample(self.images[index], index, None, None)


def noise(count=200, dtype=torch.uint8):
    return list(torch.randint(0, 255, (count, 3, 4, 4)).to(dtype))


def reasons(images):
    return [cause.reason for cause in image_causes(Images(images))]


def constant(count=200):
    """Grey, yellow, ...: the channels of an image may differ."""
    return [torch.randint(0, 255, (3, 1, 1)).expand(3, 4, 4).to(torch.uint8) for _ in range(count)]


def test_constant_images_are_told():
    assert reasons(constant()) == [
        "data.train: 64 of the 64 images looked at are constant, the same at every pixel; check which images it names"
    ]


def test_repeated_images_are_told():
    assert reasons(noise(1) * 200) == [
        "data.train: the 64 images looked at are copies of 1 image; check which images it names"
    ]
    assert "copies of 5 images;" in reasons(noise(5) * 100)[0]


@pytest.mark.parametrize(
    "images",
    [noise(), noise(dtype=torch.float32), noise(1), noise(50) * 10, [*noise(40), *constant(24)], [None] * 9],
    ids=["uint8", "float", "one", "few repeats", "some constant", "unreadable"],
)
def test_other_images_are_not(images):
    assert reasons(images) == []


def test_no_more_than_a_sample_is_read():
    source = Images(noise(1000))
    assert list(image_causes(source)) == []
    assert source.reads == LOOKED_AT


def test_images_that_cannot_be_read_are_left_out():
    assert reasons([None] * 20 + constant(20))[0].startswith("data.train: 20 of the 20 images")
