"""Ends a process whose shutdown hangs: nothing else can, once a task has blocked the event loop."""

import logging
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

log = logging.getLogger("tasks")

UNWINDING_SECONDS = 4.0  # after a drain, for what it cuts off and for its last words


@contextmanager
def ending_within(seconds: float) -> Iterator[None]:
    """End the process, with exit status 1 and a log line, if the block takes longer."""
    timer = threading.Timer(seconds, _end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _end() -> None:
    log.critical("a task blocks the event loop, and with it the shutdown; ending the process")
    os._exit(1)
