"""A child process as its parent holds it: started, asked, listened to, ended."""

import json
import logging
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Future
from contextlib import suppress
from contextvars import Context, copy_context
from dataclasses import dataclass
from queue import Queue
from typing import IO, Any

from afterwards.isolation.child import SIGNALS

START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from afterwards.isolation.child import main; main()"
)


@dataclass
class Said:
    """What a child has said to one request, and how it ended if it did not answer."""

    answer: Mapping[str, Any] | None = None
    unfit: str | None = None  # why it cannot run the task
    has_begun: bool = False
    end: str = ""


NOTHING = Said()

Request = tuple[bytes, Context, Future[Said]]


class Child:
    """A child process, held by a thread that lives as long: Linux ends the one with the other."""

    def __init__(self, path: list[str]) -> None:
        self.asked = 0
        self._path = path
        self._requests = Queue[Request | None]()
        self._process: subprocess.Popen[bytes] | None = None
        self._has_ended = False
        threading.Thread(target=self._live, name="child", daemon=True).start()

    def ask(self, request: bytes) -> Future[Said]:
        """Have the child run one attempt, after the one before has been answered."""
        self.asked += 1
        said: Future[Said] = Future()
        said.set_running_or_notify_cancel()
        self._requests.put((request, copy_context(), said))
        return said

    def end(self) -> None:
        """End the child at once; what has ended is left alone."""
        self._has_ended = True
        if self._process is not None:
            self._process.kill()
        self._requests.put(None)

    def _live(self) -> None:
        ours, theirs = socket.socketpair()
        with ours, ours.makefile("rb") as lines:
            with theirs:
                try:
                    self._process = process = _started(theirs, self._path)
                except OSError as error:
                    self._fail(error)
                    return
            if self._has_ended:
                process.kill()
            threading.Thread(target=_hang_up_after, args=(process, ours), daemon=True).start()
            while (request := self._requests.get()) is not None:
                text, context, future = request
                said = Said()
                with suppress(OSError):
                    ours.sendall(text)
                    _listen(lines, said, context)
                if said.answer is None:
                    process.kill()  # which changes nothing about an end that has come
                    said.end = _end_in_words(process.wait())
                future.set_result(said)
            process.kill()
            process.wait()

    def _fail(self, error: OSError) -> None:
        while (request := self._requests.get()) is not None:
            request[2].set_exception(error)


def _listen(lines: IO[bytes], said: Said, context: Context) -> None:
    for text in lines:
        if not text.endswith(b"\n"):  # it ended amid a word
            return
        message = json.loads(text)
        if "log" in message:
            context.run(_log, *message["log"])
        elif "begun" in message:
            said.has_begun = True
        else:
            said.unfit = message.get("unfit")
            said.answer = None if said.unfit else message
            return


def _end_in_words(status: int) -> str:
    if status >= 0:
        return f"ended with exit status {status}"
    with suppress(ValueError):
        return f"was ended by {signal.Signals(-status).name}"
    return f"was ended by signal {-status}"


def _started(line: socket.socket, path: list[str]) -> subprocess.Popen[bytes]:
    # Blocked in this thread, so that they are from the child's first moment, until it ignores them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen(
            [sys.executable, "-c", START, json.dumps(path)], stdin=line.fileno()
        )
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hang_up_after(process: subprocess.Popen[bytes], line: socket.socket) -> None:
    process.wait()
    with suppress(
        OSError
    ):  # what the task has forked would keep the line open for longer than the child lives
        line.shutdown(socket.SHUT_RDWR)


def _log(name: str, level: int, text: str, created: float) -> None:
    logger = logging.getLogger(name)
    if logger.isEnabledFor(level):
        record = {
            "name": name,
            "levelno": level,
            "levelname": logging.getLevelName(level),
            "msg": text,
        }
        logger.handle(logging.makeLogRecord({**record, "created": created}))
