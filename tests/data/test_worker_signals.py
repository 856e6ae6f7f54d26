"""A reader goes on when every process is signalled, until nobody wants images any more."""

import multiprocessing
import os
import signal
import sys
import time

import pytest

from sslkit.data.worker_signals import outlive_interruption

pytestmark = [pytest.mark.forks, pytest.mark.skipif(sys.platform != "linux", reason="forks")]


def read(is_done, grace):
    outlive_interruption(0, lambda: is_done)
    if grace is not None:
        signal.alarm = lambda seconds: signal.setitimer(signal.ITIMER_REAL, grace)
    os.kill(os.getpid(), signal.SIGINT)
    os.kill(os.getpid(), signal.SIGTERM)
    if grace is not None:
        time.sleep(20)
    os._exit(3)


@pytest.mark.parametrize(
    ("is_done", "grace", "code"),
    [(False, None, 3), (True, None, 0), (False, 0.05, -signal.SIGALRM)],
    ids=["wanted", "not wanted", "forgotten"],
)
def test_a_reader_outlives_signals_as_long_as_it_is_wanted(is_done, grace, code):
    reader = multiprocessing.get_context("fork").Process(target=read, args=(is_done, grace))
    reader.start()
    reader.join(20)
    assert reader.exitcode == code
