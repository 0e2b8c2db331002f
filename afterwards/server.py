"""What uvicorn knows before it tells the application, read from its handler of signals."""

import signal
from typing import Any


def is_stopping() -> bool:
    """Tell whether the server waits for its last requests."""
    return bool(getattr(_server(), "should_exit", False))


def is_forced_to_stop() -> bool:
    """Tell whether somebody has pressed Ctrl-C a second time."""
    return bool(getattr(_server(), "force_exit", False))


def reloads() -> bool:
    """Tell whether the server starts anew at each change of the code."""
    return bool(getattr(getattr(_server(), "config", None), "reload", False))


def _server() -> Any:
    return getattr(signal.getsignal(signal.SIGTERM), "__self__", None)
