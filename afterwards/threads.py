"""Threads that can hang without holding up anything but their own slot.

Neither of the usual two serves: anyio's threads and an executor's are joined when the interpreter
ends, and anyio's limiter takes a cancelled call's slot back although its thread still runs.
"""

import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any


def start_in_thread(
    call: Callable[[], Any], *, name: str
) -> Future[tuple[Any, BaseException | None]]:
    """Start the call in a daemon thread of its own, in a copy of this context.

    The future's result is (result, error): it cannot carry every exception (StopIteration).
    """
    future: Future[tuple[Any, BaseException | None]] = Future()
    # from here on, cancelling the waiting side leaves the future alone
    future.set_running_or_notify_cancel()
    context = contextvars.copy_context()

    def work() -> None:
        ended: tuple[Any, BaseException | None]
        try:
            ended = context.run(call), None
        except BaseException as error:
            ended = None, error
        future.set_result(ended)

    threading.Thread(target=work, name=name, daemon=True).start()
    return future
