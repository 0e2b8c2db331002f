"""Runs a task with crashes behind it in a process of its own: the next crash is its own.

`afterwards.isolation.child` runs there, and `afterwards.isolation.parent` holds it.
"""

import asyncio
import json
import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from afterwards import attempt as attempts
from afterwards import registry
from afterwards.isolation.child import BASES
from afterwards.isolation.parent import NOTHING, Child, Said
from afterwards.model import Attempt, Outcome, Task
from afterwards.retries import Poison, RetryAfter

log = logging.getLogger("tasks")

START_SECONDS = (
    30.0  # for a child to start and to import, on a busy machine; it keeps the time limit itself
)
DOUBT_SECONDS = 1.0  # what ends a child may be about to end its parent: then it is nobody's fault
KEPT_SECONDS = 5.0  # a child takes half a second of a core to start, so it waits for the next task
UNSURE_CRASHES = 10  # after so many a task is dead that can run in no process of its own
WELL = (
    Outcome.SUCCEEDED,
    Outcome.FAILED,
)  # after which a child may run another task: nothing runs on in it


class InChild(Exception):
    """What went wrong in the child, with its traceback there as the text."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


class Isolation:
    """Runs one task at a time in a child, which is kept for a while for the next one."""

    def __init__(self) -> None:
        self._kept: Child | None = None

    async def call(self, attempt: Attempt, timeout: float) -> Any:
        """Call the task function in a process of its own, as `attempt.call` does in this one.

        Raises `Poison` if that ends without an answer. Where none can be had the function runs
        here.
        """
        request = _request(attempt.task, timeout)
        said = await self._ask(self._kept, request) if self._kept else NOTHING
        if (
            said.answer is None
        ):  # of what ends a child that has run others, one of those may be the cause
            said = await self._ask(Child(_path(attempt.task)), request)
        if said.answer is not None:
            return _result(attempt, said.answer)
        if not said.has_begun:
            return await _call_here(attempt, timeout, said.unfit or said.end)
        await asyncio.sleep(DOUBT_SECONDS)
        raise Poison(attempt.task.crashes + 1, f"the last was its own, and {said.end}")

    def end(self) -> None:
        """Keep no child."""
        if self._kept is not None:
            self._kept.end()
            self._kept = None

    async def _ask(self, child: Child, request: bytes) -> Said:
        self._kept = None
        try:
            said = await asyncio.wrap_future(child.ask(request))
        except BaseException:
            child.end()
            raise
        if said.answer is None or said.answer["outcome"] not in WELL:
            child.end()
        else:
            self._kept = child
            asyncio.get_running_loop().call_later(KEPT_SECONDS, self._end, child, child.asked)
        return said

    def _end(self, child: Child, asked: int) -> None:
        if self._kept is child and child.asked == asked:
            self.end()


def _request(task: Task, timeout: float) -> bytes:
    module, file = _home(task)
    request = {
        "place": {
            "path": _path(task),
            "module": module,
            "file": file,
            "level": logging.getLogger().level,
        },
        "task": {
            "id": task.id,
            "name": task.name,
            "attempt": task.attempt,
            "crashes": task.crashes,
        },
        "arguments": registry.of_name(task.name).dump(task.args, task.kwargs)[1],
        "timeout": timeout,
    }
    return json.dumps(request).encode() + b"\n"


def _path(task: Task) -> list[str]:
    """Return where modules are found: Celery takes its own place from `sys.path` again."""
    roots = []
    for name in (__name__, task.function.__module__):
        file = Path(getattr(sys.modules.get(name), "__file__", None) or os.devnull)
        inner = file.parent if file.name == "__init__.py" else file
        roots.append(str(inner.parents[min(name.count("."), len(inner.parents) - 1)]))
    return list(dict.fromkeys([*sys.path, *roots]))


def _home(task: Task) -> tuple[str, str | None]:
    """Return the task function's module, and its file where a program was started as a file."""
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
    base: type[BaseException] = next(
        (base for base, name in BASES.items() if name == told["base"]), Exception
    )
    kind = type(told["kind"], (base,), {"__module__": "builtins"})
    error: BaseException = base.__new__(
        kind, told["message"]
    )  # its own __init__ may want more than a message
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
