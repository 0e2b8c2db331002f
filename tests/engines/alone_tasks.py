"""Task functions for a process of their own, which has to import no more than this."""

import asyncio
import logging
import os
import signal
import threading
from pathlib import Path
from typing import Any

from afterwards.attempt import current_task_id
from afterwards.registry import task
from afterwards.retries import GiveUp, RetryAfter

log = logging.getLogger("alone")


@task("alone.tells")
async def tells(word: str) -> dict[str, Any]:
    log.info("it was told %s", word)
    logging.getLogger("alone.quiet").info("nobody wants to know")
    return {"pid": os.getpid(), "id": current_task_id.get(), "word": word}


@task("alone.tells_in_a_thread")
def tells_in_a_thread(word: str) -> dict[str, Any]:
    assert threading.current_thread() is not threading.main_thread()
    return {"pid": os.getpid(), "id": current_task_id.get(), "word": word}


class TooFar(GiveUp):
    pass


@task("alone.raises")
async def raises(what: str) -> None:
    raise {
        "ValueError": ValueError("as asked"),
        "RetryAfter": RetryAfter(42, "busy"),
        "TooFar": TooFar("no such place"),
        "SystemExit": SystemExit(3),
        "CancelledError": asyncio.CancelledError(),
    }[what]


@task("alone.returns_no_json")
async def returns_no_json() -> object:
    return object()


@task("alone.hangs", timeout=0.2)
async def hangs() -> None:
    await asyncio.Event().wait()


@task("alone.hangs_in_a_thread", timeout=0.2)
def hangs_in_a_thread() -> None:
    threading.Event().wait()


@task("alone.dies")
async def dies(how: str) -> None:
    log.info("these are its last words")
    if how == "SIGSEGV":
        os.kill(os.getpid(), signal.SIGSEGV)
    if how == "and leaves a child behind" and os.fork() == 0:
        threading.Event().wait(20)
    os._exit(7)


@task("alone.writes_and_waits")
def writes_and_waits(path: str) -> None:
    Path(path).write_text(str(os.getpid()))
    threading.Event().wait()


@task("alone.leaves_a_bomb")
async def leaves_a_bomb() -> int:
    threading.Timer(0.3, os._exit, [9]).start()
    return os.getpid()


@task("alone.takes_a_second")
async def takes_a_second() -> int:
    await asyncio.sleep(1)
    return os.getpid()


@task("alone.takes_a_signal")
async def takes_a_signal() -> str:
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        os.kill(os.getpid(), each)
    return "alive"
