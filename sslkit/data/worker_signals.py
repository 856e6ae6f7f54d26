"""Signal handling of data-loading workers."""

import os
import signal
from collections.abc import Callable
from typing import Any

GRACE = 30
"""Seconds that a worker keeps running after SIGTERM, if the training process does not end it before."""


def outlive_interruption(worker: int, is_done: Callable[[], bool] = lambda: False) -> None:
    """Let a data-loading worker survive SIGINT and SIGTERM, which terminals and schedulers send to every process.

    Otherwise torch reports the death of a worker, perhaps before the training process handles its own signal. The
    training process ends its workers itself.

    Args:
        worker: number of the worker; the argument of torch's ``worker_init_fn``.
        is_done: whether no more images will be read, so that SIGTERM ends the worker at once.
    """

    def on_terminate(number: int, frame: Any) -> None:
        if is_done():
            os._exit(0)
        signal.alarm(GRACE)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "alarm"):  # not on Windows
        signal.signal(signal.SIGTERM, on_terminate)
