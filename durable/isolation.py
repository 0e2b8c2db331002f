"""A task with crashes behind it in a process of its own, so that the next crash is certainly its own.

What runs there is `durable.child`; this is its parent's side.
"""

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from durable import attempt as attempts
from durable import registry
from durable.child import BASES, SIGNALS
from durable.model import Attempt, Outcome, Task
from durable.retries import Poison, RetryAfter
from durable.threads import start_in_thread

log = logging.getLogger("tasks")

START_SECONDS = 30.0  # for a child to start and to import, on a busy machine; it keeps the time limit itself
DOUBT_SECONDS = 1.0  # what ends a child may be about to end its parent: then it is nobody's fault
UNSURE_CRASHES = 10  # after so many a task is dead that can run in no process of its own
START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from durable.child import main; main()"


class InChild(Exception):
    """What went wrong in the child, with its traceback there as the text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


async def call(attempt: Attempt, timeout: float) -> Any:
    """Call the task function in a process of its own, as `attempt.call` does in this one.

    Raises `Poison` if that ends without an answer. Where none can be had the function runs here.
    """
    child = Child(_path(attempt.task), _request(attempt.task, timeout))
    running = start_in_thread(child.run, name=attempt.task.id)
    try:
        _, error = await asyncio.wrap_future(running)
    finally:
        child.kill()
    if error is not None:
        raise error
    if child.answer is not None:
        return _result(attempt, child.answer)
    if not child.has_begun:
        return await _call_here(attempt, timeout, child.unfit or child.end())
    await asyncio.sleep(DOUBT_SECONDS)
    raise Poison(attempt.task.crashes + 1, f"the last was its own, and {child.end()}")


def _request(task: Task, timeout: float) -> bytes:
    module, file = _home(task)
    request = {
        "place": {"module": module, "file": file, "level": logging.getLogger().level},
        "task": {"id": task.id, "name": task.name, "attempt": task.attempt, "crashes": task.crashes},
        "arguments": registry.of_name(task.name).dump(task.args, task.kwargs)[1],
        "timeout": timeout,
    }
    return json.dumps(request).encode() + b"\n"


def _path(task: Task) -> list[str]:
    """Tell where modules are found: Celery, for one, takes from `sys.path` again where it has found its own."""
    roots = []
    for name in (__name__, task.function.__module__):
        file = Path(getattr(sys.modules.get(name), "__file__", None) or os.devnull)
        inner = file.parent if file.name == "__init__.py" else file
        roots.append(str(inner.parents[min(name.count("."), len(inner.parents) - 1)]))
    return list(dict.fromkeys([*sys.path, *roots]))


def _home(task: Task) -> tuple[str, str | None]:
    """Tell which module to import for the task function; a program that was started as a file has no name for it."""
    name = task.function.__module__
    if name not in ("__main__", "__mp_main__"):
        return name, None
    main = sys.modules[name]
    spec = getattr(main, "__spec__", None)
    return (spec.name, None) if spec else ("__task__", getattr(main, "__file__", None))


def _result(attempt: Attempt, answer: Mapping[str, Any]) -> Any:
    if (told := answer["error"]) is None:
        return json.loads(answer["result"] or "null")
    if answer["outcome"] == Outcome.TIMED_OUT:
        attempt.outcome = Outcome.TIMED_OUT
    base: type[BaseException] = next((base for base, name in BASES.items() if name == told["base"]), Exception)
    kind = type(told["kind"], (base,), {"__module__": "builtins"})
    error: BaseException = base.__new__(kind, told["message"])  # its own __init__ may want more than a message
    if isinstance(error, RetryAfter):
        error.seconds = told["seconds"]
    raise error from InChild(told["traceback"])


async def _call_here(attempt: Attempt, timeout: float, why: str) -> Any:
    task = attempt.task
    log.warning("%s cannot run in a process of its own, so it runs in this one: %s", task.name, why)
    if task.crashes >= UNSURE_CRASHES:
        raise Poison(task.crashes, f"it cannot run in a process of its own: {why}")
    try:
        async with asyncio.timeout(timeout) as limit:
            return await attempts.call(attempt)
    except TimeoutError:
        if limit.expired():
            attempt.outcome = Outcome.TIMED_OUT
        raise


@dataclass
class Child:
    """A child for one request; `run` blocks, and belongs into a thread."""

    path: list[str]
    request: bytes
    answer: Mapping[str, Any] | None = None
    unfit: str | None = None  # why the child cannot run the task
    has_begun: bool = False
    status: int | None = None  # how the child ended, as `Popen.returncode`
    _process: subprocess.Popen[bytes] | None = None
    _is_killed: bool = False

    def run(self) -> None:
        """Start the child, and listen to it until it ends."""
        ours, theirs = socket.socketpair()
        with ours:
            with theirs:
                self._process = process = _started(theirs, self.path)
            if self._is_killed:
                process.kill()
            threading.Thread(target=_hang_up_after, args=(process, ours), daemon=True).start()
            with suppress(OSError):
                ours.sendall(self.request)
                self._listen(ours)
            if self.answer or self.unfit:
                process.kill()
            self.status = process.wait()

    def kill(self) -> None:
        """End the child at once; what has ended is left alone."""
        self._is_killed = True
        if self._process is not None:
            self._process.kill()

    def end(self) -> str:
        """Say how the child ended."""
        if self.status is None or self.status >= 0:
            return f"ended with exit status {self.status}"
        with suppress(ValueError):
            return f"was ended by {signal.Signals(-self.status).name}"
        return f"was ended by signal {-self.status}"

    def _listen(self, line: socket.socket) -> None:
        for text in line.makefile("rb"):
            if not text.endswith(b"\n"):  # it ended amid a word
                return
            message = json.loads(text)
            if "log" in message:
                _log(*message["log"])
            elif "begun" in message:
                self.has_begun = True
            else:  # it says nothing after that, and waits to be ended
                self.unfit = message.get("unfit")
                self.answer = None if self.unfit else message
                return


def _started(line: socket.socket, path: list[str]) -> subprocess.Popen[bytes]:
    # Blocked in this thread, so that they are from the child's first moment, until it ignores them.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    try:
        return subprocess.Popen([sys.executable, "-c", START, json.dumps(path)], stdin=line.fileno())
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _hang_up_after(process: subprocess.Popen[bytes], line: socket.socket) -> None:
    process.wait()
    with suppress(OSError):  # what the task has forked would keep the line open for longer than the child lives
        line.shutdown(socket.SHUT_RDWR)


def _log(name: str, level: int, text: str, created: float) -> None:
    logger = logging.getLogger(name)
    if logger.isEnabledFor(level):
        record = {"name": name, "levelno": level, "levelname": logging.getLevelName(level), "msg": text}
        logger.handle(logging.makeLogRecord({**record, "created": created}))
