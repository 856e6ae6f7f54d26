"""Signal handling of data-loading workers."""

import os
import signal
from collections.abc import Callable
from typing import Any

GRACE = 30
"""Seconds that a worker keeps running after SIGTERM."""


def outlive_interruption(worker: int, is_done: Callable[[], bool] = lambda: False) -> None:
    """Go on when a terminal or a scheduler signals every process: the one that is read for ends its readers itself.

    Args:
        worker: its number; torch's loaders call this with it as a worker starts.
        is_done: whether nobody wants images any more, so that SIGTERM ends the reader.
    """

    def on_terminate(number: int, frame: Any) -> None:
        if is_done():
            os._exit(0)
        signal.alarm(GRACE)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):
        signal.signal(signal.SIGTERM, on_terminate)
