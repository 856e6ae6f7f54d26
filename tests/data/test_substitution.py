import logging
import pickle

import pytest
import torch

from sslkit.contracts import ImageSource
from sslkit.data.substitution import UnreadableLog, naming, read_or_substitute
from sslkit.errors import DataError, UnreadableImage
from sslkit.types import Sample


class Holes(ImageSource):
    """Ten images, some of which are damaged."""

    name = "holes"

    def __init__(self, damaged, size=10):
        self.damaged = set(damaged)
        self.keys = torch.arange(size)

    def read(self, index):
        if index in self.damaged:
            raise UnreadableImage(f"{index}.jpg", "truncated")
        return Sample(torch.zeros(3, 2, 2), int(self.keys[index]), label=index)


@pytest.mark.parametrize(("wanted", "got", "bad"), [(0, 0, []), (3, 5, ["3.jpg", "4.jpg"]), (9, 0, ["9.jpg"])])
def test_the_next_image_stands_in(wanted, got, bad):
    sample, errors = read_or_substitute(Holes([3, 4, 9]), wanted)
    assert (sample.key, sample.label) == (got, got)
    assert [error.name for error in errors] == bad
    assert [error.name for error in pickle.loads(pickle.dumps(errors))] == bad


def test_an_error_that_names_no_image_gets_the_name_of_one():
    source = Holes([])
    with pytest.raises(DataError, match=r"^holes, image 3: four channels$"), naming(source, 3):
        raise DataError("four channels")
    with pytest.raises(UnreadableImage, match=r"^3\.jpg: truncated$"), naming(source, 3):
        raise UnreadableImage("3.jpg", "truncated")


def test_a_source_that_says_no_more_has_rows():
    assert Holes([]).places([7, 99]) == ["row 7", ""]


def test_nothing_but_damage_is_an_end():
    said = r"^holes: truncated\. So 10 images in a row cannot be read; the first is 2.jpg$"
    with pytest.raises(DataError, match=said):
        read_or_substitute(Holes(range(10)), 2)
    with pytest.raises(DataError, match="100 images in a row"):
        read_or_substitute(Holes(range(1000), size=1000), 2)


def test_several_reasons_are_left_to_the_first_image():
    class Various(Holes):
        def read(self, index):
            raise UnreadableImage(f"{index}.jpg", "truncated" if index % 2 else "is empty")

    with pytest.raises(DataError, match=r"^holes: 10 images in a row cannot be read; the first is 2.jpg: is empty$"):
        read_or_substitute(Various(()), 2)


def bad(*names):
    return [UnreadableImage(str(name), "truncated") for name in names]


def test_each_damaged_image_is_counted_and_named_once(caplog):
    log = UnreadableLog(num_images=10_000)
    with caplog.at_level(logging.WARNING, logger="sslkit.data"):
        log.record(64, bad("a.jpg", "b.jpg", "a.jpg"))
        log.record(64, bad("a.jpg"))
    assert log.names == {"a.jpg", "b.jpg"}
    assert [record.getMessage() for record in caplog.records] == [
        "unreadable image replaced by its neighbour: a.jpg: truncated",
        "unreadable image replaced by its neighbour: b.jpg: truncated",
    ]


def test_a_bad_file_among_the_first_ends_nothing_but_too_many_do():
    log = UnreadableLog(num_images=10_000)
    log.record(10, bad(0))
    log.record(10, bad(*range(10)))  # 10 of 20 so far, 1 % of the first 1,000
    said = r"11 of 30 images seen cannot be read, more than 1.00% .* 0, 1, 10.*, or raise runtime.unreadable_limit\."
    with pytest.raises(DataError, match=said):
        log.record(10, bad(10))


def test_later_the_share_of_the_images_seen_counts():
    log = UnreadableLog(num_images=10_000)
    log.record(5000, bad(*range(50)))
    with pytest.raises(DataError, match="51 of 5000"):
        log.record(0, bad(50))


def test_epochs_do_not_count_an_image_twice():
    log = UnreadableLog(num_images=2000)
    for _ in range(10):
        log.record(2000, bad(*range(20)))
    assert log.num_seen == 2000
    with pytest.raises(DataError, match="21 of 2000"):
        log.record(2000, bad(20))


def test_small_sets_and_other_limits():
    with pytest.raises(DataError):
        UnreadableLog(num_images=50).record(1, bad(0))
    UnreadableLog(num_images=50, limit=0.02).record(1, bad(0))
    UnreadableLog(num_images=50, limit=0).record(50, [])
    with pytest.raises(DataError):
        UnreadableLog(num_images=10**6, limit=0).record(10**6, bad(0))
    with pytest.raises(DataError, match=r"not 1\.5"):
        UnreadableLog(num_images=50, limit=1.5)
