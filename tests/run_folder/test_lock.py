"""One process at a time holds a folder, and none that is dead."""

import errno
import multiprocessing
import os
import socket
import sys
import time

import pytest

from sslkit.errors import SSLKitError
from sslkit.run_folder import lock
from sslkit.run_folder.lock import LOCK, alone_in

pytestmark = pytest.mark.forks

fork = multiprocessing.get_context("fork") if sys.platform == "linux" else None
needs_fork = pytest.mark.skipif(fork is None, reason="forks")


def refused(folder):
    try:
        with alone_in(folder):
            return False
    except SSLKitError:
        return True


def test_a_folder_is_made_and_held_by_one_at_a_time(tmp_path):
    folder = tmp_path / "runs" / "one"
    with (
        alone_in(folder),
        pytest.raises(SSLKitError, match=f"one is in use by process {os.getpid()} on {socket.gethostname()}; stop it"),
        alone_in(folder),
    ):
        pass
    with alone_in(folder):
        assert (folder / LOCK).read_text() == f"process {os.getpid()} on {socket.gethostname()}"
    with pytest.raises(ZeroDivisionError), alone_in(folder):
        raise ZeroDivisionError
    assert not refused(folder)
    assert not lock._held


def test_another_folder_is_free(tmp_path):
    with alone_in(tmp_path / "a"), alone_in(tmp_path / "b"):
        assert refused(tmp_path / "a")


def test_reading_the_lock_does_not_give_it_up(tmp_path):
    with alone_in(tmp_path):
        (tmp_path / LOCK).read_text()
        assert refused(tmp_path)


def hold(folder, held):
    with alone_in(folder):
        held.set()
        worker = fork.Process(target=time.sleep, args=(60,))
        worker.start()
        held.worker.value = worker.pid
        time.sleep(60)


@needs_fork
def test_a_killed_holder_lets_go_though_its_workers_live(tmp_path):
    held = fork.Event()
    held.worker = fork.Value("i", 0)
    holder = fork.Process(target=hold, args=(tmp_path, held))
    holder.start()
    assert held.wait(20)
    while not held.worker.value:
        time.sleep(0.001)
    assert refused(tmp_path)
    holder.kill()
    holder.join()
    os.kill(held.worker.value, 0)
    assert not refused(tmp_path)
    os.kill(held.worker.value, 9)


@pytest.mark.parametrize("why", ["no locks here", "no flock at all"])
def test_without_locks_a_warning_says_so(tmp_path, monkeypatch, caplog, why):
    class NoLocks:
        LOCK_EX = LOCK_NB = 0

        @staticmethod
        def flock(descriptor, how):
            raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(lock, "fcntl", NoLocks if why == "no locks here" else None)
    with alone_in(tmp_path):
        pass
    [record] = caplog.records
    assert record.message.startswith(f"{tmp_path} cannot be locked (")
    assert record.message.endswith("make sure that one process alone writes it")


def test_a_place_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("kept")
    with pytest.raises(SSLKitError, match="cannot be written"), alone_in(tmp_path / "file"):
        pass
