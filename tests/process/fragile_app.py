"""The real service with a fault to be found: `status`, `stall`, `task` or `undescribed`."""

import functools
import time
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fuzz.app import app


def _failing(fail: Callable[[Message], None]) -> ASGIApp:
    async def failing(scope: Scope, receive: Receive, send: Send) -> None:
        async def changed(message: Message) -> None:
            if message["type"] == "http.response.start" and message["status"] < 300:
                fail(message)
            await send(message)

        await app(
            scope,
            receive,
            changed if scope["type"] == "http" and scope["method"] == "POST" else send,
        )

    return failing


def _answer_500(message: Message) -> None:
    message["status"] = 500


@functools.cache  # once
def _hold_the_loop() -> None:
    end = time.thread_time() + 1.2
    while time.thread_time() < end:
        pass


def _stand_still(message: Message) -> None:
    _hold_the_loop()


def _name_no_task(message: Message) -> None:
    message["headers"].append((b"task-id", b"task-that-is-nowhere"))


def _answer_207(message: Message) -> None:
    message["status"] = 207


FAULTS = (_answer_500, _stand_still, _name_no_task, _answer_207)
status, stall, task, undescribed = map(_failing, FAULTS)
