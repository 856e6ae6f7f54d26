"""A signal asks; work that may be left is left at once."""

import multiprocessing
import os
import signal
import sys
import threading
import time

import pytest
import torch

from sslkit.training.signals import Interruption

SIGNALS = [signal.SIGINT, signal.SIGTERM]
CPU = torch.device("cpu")


@pytest.fixture
def answers():
    return []


@pytest.fixture
def interruption(answers):
    return Interruption(lambda: answers.append("coming"))


def send(number):
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", SIGNALS)
def test_the_first_signal_asks_and_a_later_one_is_for_whoever_had_it_before(interruption, answers, number, monkeypatch):
    seen = []
    mine = signal.signal(number, lambda number, frame: seen.append(number))
    try:
        with interruption.by_signals():
            assert not interruption.agreed(CPU)
            send(number)
            assert (interruption.agreed(CPU), answers, seen) == (True, ["coming"], [])
            send(number)
            assert seen == []
            monkeypatch.setattr("sslkit.training.signals.ECHO", 0)
            send(number)
            assert (answers, seen) == (["coming"], [number])
        send(number)
        assert seen == [number] * 2
    finally:
        signal.signal(number, mine)


@pytest.mark.parametrize("number", SIGNALS)
def test_work_is_left_at_once(interruption, answers, number):
    left = []

    def work():
        try:
            threading.Timer(0.05, send, [number]).start()
            time.sleep(60)
        finally:
            left.append(True)

    start = time.monotonic()
    with interruption.by_signals():
        assert interruption.attempt(work) is None
    assert time.monotonic() - start < 20
    assert (interruption.asked, answers, left) == (True, ["coming"], [True])


def test_work_is_done_unless_somebody_asked_before(interruption):
    assert interruption.attempt(lambda: 7) == 7
    interruption.asked = True
    assert interruption.attempt(lambda: 1 / 0) is None


def test_other_ways_out_of_the_work_are_what_they_were(interruption):
    def fail():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interruption.attempt(fail)
    with pytest.raises(ZeroDivisionError):
        interruption.attempt(lambda: 1 / 0)


def test_what_may_not_be_left_goes_on(interruption):
    interruption.attempt(lambda: None)
    with interruption.by_signals():
        send(signal.SIGTERM)
        done = True
    assert done


@pytest.mark.parametrize(("mine", "others"), [(False, False), (True, False), (False, True)])
def test_several_processes_agree_on_what_each_knew_before(interruption, mine, others, monkeypatch):
    def largest(tensor):
        send(signal.SIGTERM)
        return tensor if tensor or not others else torch.ones(())

    monkeypatch.setattr("sslkit.training.signals.world_size", lambda: 2)
    monkeypatch.setattr("sslkit.training.signals.max_over_processes", largest)
    interruption.asked = mine
    with interruption.by_signals():
        assert interruption.agreed(CPU) == (mine or others)
        # The signal that came meanwhile is not forgotten.
        assert interruption.asked


def test_in_another_thread_signals_are_nobodys(interruption):
    before = [signal.getsignal(number) for number in SIGNALS]
    seen = []

    def work():
        with interruption.by_signals():
            seen.extend(signal.getsignal(number) for number in SIGNALS)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert seen == before


@pytest.mark.forks
@pytest.mark.skipif(sys.platform != "linux", reason="forks")
@pytest.mark.parametrize("number", SIGNALS)
def test_a_forked_reader_goes_on_and_says_nothing(interruption, number):
    fork = multiprocessing.get_context("fork")
    answered = fork.Value("i", 0)
    interruption._answer = lambda: setattr(answered, "value", 1)

    def read():
        send(number)
        os._exit(0 if not interruption.asked else 1)

    with interruption.by_signals():
        reader = fork.Process(target=lambda: interruption.attempt(read))
        reader.start()
        reader.join()
    assert (reader.exitcode, answered.value) == (0, 0)
