"""Which images make each batch: every image once an epoch, one order for any number of processes and workers."""

import logging
import multiprocessing
import os
import signal
import time

import pytest
import torch

from sslkit.clock import Clock
from sslkit.contracts import ImageSource, ViewMaker
from sslkit.data import Textures
from sslkit.errors import DataError, UnreadableImage
from sslkit.training.loader import MAX_WORKERS, Batch, StepBatches, default_workers, load_batches
from sslkit.types import Sample, ViewGroup, Views
from sslkit.views import MultiCrop

N, BATCH, PER_EPOCH = 22, 6, 3


class Numbered(ImageSource):
    """Images that say their number; the key is the number plus 100."""

    name = "numbered"

    def __init__(self, damaged=()):
        self.keys = torch.arange(N) + 100
        self.damaged = damaged

    def read(self, index):
        if index in self.damaged:
            raise UnreadableImage(f"{index}.png", "is empty")
        return Sample(torch.full((1, 2, 2), float(index)), index + 100)


class AsTheyAre(ViewMaker):
    """The image, and what it was prepared with."""

    num_globals, sizes = 1, (2,)

    def prepare(self, sample, epoch, seed):
        return sample.image, torch.tensor([epoch, seed])

    def make(self, prepared, keys, epoch, seed):
        return Views((ViewGroup(prepared[0][None], (0,)),), 1)


def batches(rank=0, world_size=1, seed=5, steps=9, damaged=()):
    clock = Clock(0, steps, PER_EPOCH)
    return StepBatches(Numbered(damaged), AsTheyAre(), clock, BATCH, seed, rank, world_size)


def test_an_epoch_sees_whole_batches_of_different_images():
    for epoch in range(3):
        seen = [i for step in range(PER_EPOCH) for i in batches().indices(PER_EPOCH * epoch + step)]
        assert len(seen) == len(set(seen)) == PER_EPOCH * BATCH
        assert set(seen) < set(range(N))


def test_every_image_is_seen_once_where_batches_divide_the_images():
    clock = Clock(0, 11, 11)
    whole = StepBatches(Numbered(), AsTheyAre(), clock, 2, seed=0)
    assert sorted(i for step in range(11) for i in whole.indices(step)) == list(range(N))


def test_epochs_and_seeds_have_their_own_order():
    orders = [batches().indices(0), batches().indices(PER_EPOCH), batches(seed=6).indices(0)]
    assert len({tuple(order) for order in orders}) == 3


@pytest.mark.parametrize("world_size", [2, 3, 6])
def test_processes_share_each_batch_in_contiguous_slices(world_size):
    for step in range(9):
        shares = [batches(rank, world_size).indices(step) for rank in range(world_size)]
        assert {len(share) for share in shares} == {BATCH // world_size}
        assert [i for share in shares for i in share] == batches().indices(step)


def test_a_batch_holds_what_was_read():
    batch = batches()[4]
    expected = batches().indices(4)
    assert batch.keys.tolist() == [i + 100 for i in expected]
    assert batch.keys.dtype == torch.int64
    assert batch.prepared[0].shape == (BATCH, 1, 2, 2)
    assert batch.prepared[0][:, 0, 0, 0].tolist() == expected
    assert batch.prepared[1].tolist() == [[1, 5]] * BATCH
    assert list(batch.unreadable) == []


def test_damaged_images_are_reported_and_replaced_by_the_next():
    wanted = batches().indices(0)
    damaged = {wanted[1], (wanted[1] + 1) % N}
    batch = batches(damaged=damaged)[0]
    stand_in = next((wanted[1] + i) % N for i in range(2, N) if (wanted[1] + i) % N not in damaged)
    assert batch.keys.tolist()[1] == stand_in + 100
    assert {error.name for error in batch.unreadable} == {f"{i}.png" for i in damaged & {*wanted, *damaged}}


def test_nothing_readable_ends_it():
    with pytest.raises(DataError, match="22 images in a row cannot be read"):
        batches(damaged=range(N))[0]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_an_error_is_one_message_wherever_it_is_raised(num_workers):
    with pytest.raises(DataError, match=r"^numbered: is empty\. So 22 images in a row cannot be read; [^\n]*$"):
        next(load_batches(batches(damaged=range(N)), 0, num_workers))


def test_workers_end_at_once_with_an_error_that_is_kept():
    class Slow(StepBatches):
        def indices(self, step):
            return [0] if step == 0 else range(1, N)

    class Failing(Numbered):
        def read(self, index):
            if index == 0:
                raise DataError("the disk is gone")
            time.sleep(1)
            return super().read(index)

    start = time.monotonic()
    with pytest.raises(DataError, match=r"^the disk is gone$") as caught:
        list(load_batches(Slow(Failing(), AsTheyAre(), Clock(0, 2, 2), BATCH, seed=5), 0, num_workers=2))
    assert multiprocessing.active_children() == []
    # The second batch alone takes 21 seconds, and the traceback that is kept could keep its worker.
    assert time.monotonic() - start < 8
    assert caught.tb is not None


@pytest.mark.parametrize("first", [0, 4, 8, 9])
def test_loading_starts_anywhere(first):
    loaded = list(load_batches(batches(), first, num_workers=0))
    assert [step for step, _ in loaded] == list(range(first, 9))
    for step, batch in loaded:
        assert batch.keys.tolist() == batches()[step].keys.tolist()


def test_workers_change_nothing_and_hand_errors_over(caplog):
    alone = list(load_batches(batches(damaged={3}), 2, num_workers=0))
    with caplog.at_level(logging.ERROR):
        helped = list(load_batches(batches(damaged={3}), 2, num_workers=2))
    assert [step for step, _ in helped] == [step for step, _ in alone]
    for (_, a), (_, b) in zip(alone, helped, strict=True):
        assert torch.equal(a.keys, b.keys)
        assert all(torch.equal(x, y) for x, y in zip(a.prepared, b.prepared, strict=True))
        assert [str(error) for error in a.unreadable] == [str(error) for error in b.unreadable]
    assert any(batch.unreadable for _, batch in helped)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_workers_leave_interruptions_to_the_training_process(number):

    class Interrupting(Numbered):
        def read(self, index):
            if os.getpid() != parent:
                os.kill(os.getpid(), number)
            return super().read(index)

    parent = os.getpid()
    clock = Clock(0, 2, PER_EPOCH)
    source = StepBatches(Interrupting(), AsTheyAre(), clock, BATCH, seed=5)
    assert len(list(load_batches(source, 0, num_workers=1))) == 2


def test_workers_end_with_the_generator():
    loading = load_batches(batches(), 0, num_workers=2)
    next(loading)
    assert len(multiprocessing.active_children()) == 2
    loading.close()
    assert multiprocessing.active_children() == []


def test_images_in_memory_need_no_workers(monkeypatch):
    assert default_workers(Textures(8)) == 0
    assert default_workers(Textures(8), views=MultiCrop(crop_on="device", canvas_size=32)) == 0
    assert default_workers(Textures(8), views=MultiCrop()) >= 1
    assert default_workers(Textures(8), views=AsTheyAre()) >= 1
    for cores, processes, expected in [(1, 1, 1), (4, 1, 3), (64, 1, MAX_WORKERS), (8, 4, 1)]:
        monkeypatch.setattr("os.sched_getaffinity", lambda _, n=cores: set(range(n)), raising=False)
        assert default_workers(Numbered(), processes) == expected


def test_a_batch_can_be_pinned(monkeypatch):
    monkeypatch.setattr(torch.Tensor, "pin_memory", lambda tensor: tensor + 1)
    batch = Batch((torch.zeros(2), torch.ones(2)), torch.zeros(2, dtype=torch.int64), ["x"]).pin_memory()
    assert [tensor.tolist() for tensor in batch.prepared] == [[1, 1], [2, 2]]
    assert (batch.keys.tolist(), batch.unreadable) == ([0, 0], ["x"])


def test_the_first_image_is_tried_as_the_first_step_will_read_it():
    batches().try_first_image()
    with pytest.raises(DataError, match="cannot be read"):
        batches(damaged=range(N)).try_first_image()
