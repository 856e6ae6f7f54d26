"""The first Ctrl-C asks a run to stop, the second one stops it."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import current_thread, main_thread
from typing import Any


@contextmanager
def interruptible(ask: Callable[[], None]) -> Iterator[None]:
    """Call ``ask`` at the first SIGINT or SIGTERM inside the block; a second one is handled as before the block.

    Python gives signals to the main thread alone; in another thread nothing is changed.
    """

    def request(number: int, frame: Any) -> None:
        ask()
        signal.signal(number, before[signal.Signals(number)])

    numbers = (signal.SIGINT, signal.SIGTERM) if current_thread() is main_thread() else ()
    before = {number: signal.getsignal(number) for number in numbers}
    for number in before:
        signal.signal(number, request)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
