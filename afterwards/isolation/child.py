"""A process that runs one attempt after another for its parent, and tells it how each ended.

Fd 0 is a socket to the parent: one line of JSON comes, lines go back, of which the last is the
answer. Without one the process has died of its task. It does not outlive its parent, and leaves
signals to that.
"""

import asyncio
import ctypes
import importlib
import json
import logging
import os
import runpy
import signal
import socket
import sys
import threading
import traceback
from contextvars import Context
from typing import Any

from afterwards import registry
from afterwards.attempt import current_task_id, outcome_of
from afterwards.model import Attempt, Task
from afterwards.retries import GiveUp, RetryAfter, message_of
from afterwards.rows import result_of
from afterwards.time_limits import TimeLimits

# A platform sends them to every process of the service: the parent says what they mean for this
# one.
SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
PR_SET_PDEATHSIG = 1
# What the parent has to tell apart; of any other error the name is enough.
BASES = {GiveUp: "GiveUp", RetryAfter: "RetryAfter", asyncio.CancelledError: "CancelledError"}


_run: list[str] = []  # files that were run as modules are imported: once


class Parent(logging.Handler):
    """The line to the parent, which writes this process's log as well."""

    def __init__(self, line: socket.socket) -> None:
        super().__init__()
        self._line = line

    def say(self, **message: Any) -> None:
        """Send a message whole, whichever thread it comes from."""
        self.acquire()
        try:
            self._line.sendall(json.dumps(message).encode() + b"\n")
        except OSError:  # nobody listens any more
            os._exit(1)
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        text = record.getMessage()
        if record.exc_info:
            text += "\n" + "".join(traceback.format_exception(*record.exc_info))
        self.say(log=[record.name, record.levelno, text, record.created])


def main() -> None:
    """Do what the parent asks for, until it ends this process."""
    for each in SIGNALS:
        signal.signal(each, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    line = socket.socket(
        fileno=os.dup(0)
    )  # which, unlike fd 0, nothing inherits that the task may start
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    asyncio.run(_serve(line))


async def _serve(line: socket.socket) -> None:
    loop, parent, requests = asyncio.get_running_loop(), Parent(line), asyncio.Queue[bytes]()

    def listen() -> None:
        for request in line.makefile("rb"):
            loop.call_soon_threadsafe(requests.put_nowait, request)
        os._exit(1)  # the parent has gone

    threading.Thread(target=listen, daemon=True).start()
    while True:
        request = json.loads(await requests.get())
        # An empty context, as in the parent.
        await loop.create_task(_answer(parent, **request), context=Context())


async def _answer(
    parent: Parent, *, place: dict[str, Any], task: dict[str, Any], arguments: str, timeout: float
) -> None:
    try:
        attempt = _attempt(parent, place, task, arguments)
    except BaseException as error:  # SystemExit too: what is imported may do anything
        parent.say(unfit=f"{type(error).__name__}: {message_of(error)}")
        return
    parent.say(begun=True)
    current_task_id.set(attempt.task.id)
    attempt.outcome, attempt.error = await outcome_of(attempt, timeout, TimeLimits())
    sys.stdout.flush()
    parent.say(outcome=attempt.outcome, result=result_of(attempt), error=_told(attempt.error))


def _attempt(
    parent: Parent, place: dict[str, Any], task: dict[str, Any], arguments: str
) -> Attempt:
    logging.basicConfig(handlers=[parent], level=place["level"])
    sys.path[:] = place["path"]
    if place["file"] and place["file"] not in _run:
        _run.append(place["file"])
        runpy.run_path(place["file"], run_name=place["module"])
    elif not place["file"]:
        importlib.import_module(place["module"])
    logging.basicConfig(
        handlers=[parent], level=place["level"], force=True
    )  # the import may have changed it
    entry = registry.of_name(task["name"])
    return Attempt(
        Task(**task, function=entry.function, is_async=entry.is_async, kwargs=entry.load(arguments))
    )


def _told(error: BaseException | None) -> dict[str, Any] | None:
    if error is None:
        return None
    return {
        "kind": type(error).__name__,
        "base": next(
            (name for base, name in BASES.items() if isinstance(error, base)), "Exception"
        ),
        "message": message_of(error),
        "seconds": getattr(error, "seconds", 0.0) if isinstance(error, RetryAfter) else 0.0,
        "traceback": "".join(traceback.format_exception(error)),
    }
