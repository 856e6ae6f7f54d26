"""Images a second and the share of time spent waiting."""

import pytest

from sslkit.training import progress as display_module
from sslkit.training.stopwatch import Stopwatch


@pytest.fixture(autouse=True)
def clockwork(monkeypatch):
    """A step takes 3 seconds."""
    now = iter(range(0, 10**6, 3))
    monkeypatch.setattr(display_module.time, "monotonic", lambda: float(next(now)))


def test_the_stopwatch_counts_waiting_and_leaves_pauses_out(monkeypatch):
    now = iter([0.0, 1.0, 3.0, 3.0, 13.0, 20.0, 20.0, 20.0])
    monkeypatch.setattr("time.perf_counter", lambda: next(now))
    watch = Stopwatch(step=5)  # 0
    with watch.waiting():  # 1 .. 3
        pass
    with watch.paused():  # 3 .. 13
        pass
    # Ten seconds of the twenty count; two of them were spent waiting.
    assert watch.read(step=8, batch_size=4) == {"images_per_second": 12 / 10, "data_wait_fraction": 0.2}
    assert watch.read(step=8, batch_size=4)["data_wait_fraction"] == 0
