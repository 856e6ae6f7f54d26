"""Workers go on when every process is signalled, end with the process that started them, and are missed when lost."""

import multiprocessing
import os
import signal
import sys
import threading
import time

import pytest
from torch.utils.data import DataLoader, Dataset

from sslkit.data import workers as module
from sslkit.data.workers import LostWorker, Workers

pytestmark = [pytest.mark.forks, pytest.mark.skipif(sys.platform != "linux", reason="forks")]
FORK = multiprocessing.get_context("fork")


class Numbers(Dataset):
    """Number i, after the worker that reads number ``at`` has had a signal."""

    def __init__(self, at=None, number=None):
        self.at, self.number = at, number

    def __len__(self):
        return 20

    def __getitem__(self, index):
        if index == self.at:
            os.kill(os.getpid(), self.number)
        return index


def load(at, number):
    workers = Workers(2)
    return workers.load(DataLoader(Numbers(at, number), batch_size=None, **workers.options))


def begin(stopped):
    workers = Workers(1)
    workers.begin(0)
    workers._stopped.value = stopped
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    os._exit(3)


@pytest.mark.parametrize(("stopped", "code"), [(False, 3), (True, 0)])
def test_a_worker_outlives_signals_as_long_as_it_is_wanted(stopped, code):
    worker = FORK.Process(target=begin, args=(stopped,))
    worker.start()
    worker.join(20)
    assert worker.exitcode == code


def test_all_that_a_loader_yields_comes_once():
    assert list(load(5, signal.SIGTERM)) == list(range(20))


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (signal.SIGKILL, r"was killed, .* \(runtime\.num_workers\) take less"),
        (signal.SIGSTOP, r"is stopped \(SIGSTOP\)"),
    ],
)
def test_a_lost_worker_is_one_message_once_its_images_are_missed(number, said, monkeypatch):
    monkeypatch.setattr(module, "CHECK_EVERY", 0.5)
    handler = signal.getsignal(signal.SIGCHLD)
    with pytest.raises(LostWorker, match=said):
        list(load(7, number))
    # Not torch's, which would raise an error in the middle of a step.
    assert signal.getsignal(signal.SIGCHLD) == handler
    assert not [child for child in multiprocessing.active_children() if child.is_alive()]


def test_workers_that_cannot_be_started_are_one_message(monkeypatch):
    def fail(self):
        raise OSError(11, "Resource temporarily unavailable")

    monkeypatch.setattr(multiprocessing.Process, "start", fail)
    with pytest.raises(LostWorker, match=r"2 processes .* cannot be started: .*unavailable. Set runtime\.num_workers"):
        list(load(None, None))


def start_late(pipe):
    """Start a worker, and end before it asks who has started it."""
    worker = FORK.Process(target=ends_with_parent, args=(pipe,))
    worker.start()
    os.kill(os.getpid(), signal.SIGKILL)


def ends_with_parent(pipe):
    time.sleep(0.5)
    module.end_with_parent()
    pipe.send("alive")
    time.sleep(60)


def start_early(pipe):
    worker = FORK.Process(target=end_later, args=(pipe,))
    worker.start()
    time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGKILL)


def end_later(pipe):
    module.end_with_parent()
    threading.Event().wait(60)
    pipe.send("alive")


@pytest.mark.parametrize("start", [start_late, start_early])
def test_a_worker_ends_with_the_process_that_started_it(start):
    receive, send = FORK.Pipe(duplex=False)
    parent = FORK.Process(target=start, args=(send,))
    parent.start()
    send.close()
    parent.join(20)
    # The pipe has no writer once both have ended.
    assert receive.poll(20)
    with pytest.raises(EOFError):
        receive.recv()
