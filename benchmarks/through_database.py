"""How many tasks a second a database takes: inserted, claimed and settled, but never run."""

import asyncio
import multiprocessing
import os
import secrets
import time
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from afterwards.model import Task, new_task_id
from afterwards.rows import check, row_of
from afterwards.store.database import Database
from afterwards.store.given import SettledRow
from afterwards.store.tasks import PUBLISH_AGAIN_SECONDS, Store
from benchmarks import apps

PROCESSES = os.cpu_count() or 1
CALLERS = (4, 32)  # in each process: a worker of a few processes, and one of many threads
SECONDS = 4.0  # so long at least, in whole turns of all callers
TURN = 8  # tasks of each caller


class Passed(NamedTuple):
    """The tasks of one process, and when they began and ended by the clock that all share."""

    tasks: int
    began: float
    ended: float


def rate(database_url: str, callers: int) -> float:
    """Put tasks through the database from several processes at once; return the rate of all."""
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawning) as pool:
        passed = list(pool.map(_pass_through, [database_url] * PROCESSES, [callers] * PROCESSES))
    began, ended = min(each.began for each in passed), max(each.ended for each in passed)
    return sum(each.tasks for each in passed) / (ended - began)


def _pass_through(database_url: str, callers: int) -> Passed:
    return asyncio.run(_pass_all_through(Database(database_url), callers))


async def _pass_all_through(database: Database, callers: int) -> Passed:
    web = Store(database)  # what is asked at once shares commits, as in a process of the service
    await asyncio.gather(*(_pass(web, 1) for _ in range(callers)))  # connects
    began, turns = time.monotonic(), 0
    while time.monotonic() < began + SECONDS:
        await asyncio.gather(*(_pass(web, TURN) for _ in range(callers)))
        turns += 1
    ended = time.monotonic()
    await database.close()
    return Passed(turns * TURN * callers, began, ended)


async def _pass(web: Store, count: int) -> None:
    """Be one of those who ask at the same time in a process, which shares what it asks."""
    worker = secrets.token_hex(8)
    for _ in range(count):
        task = Task(new_task_id(), "nothing", apps.stored_nothing, is_async=True)
        await web.enqueue([row_of(task, check(task)[1], publish_after=PUBLISH_AGAIN_SECONDS)])
        assert await web.claim_one(worker, task.id)
        done = asyncio.Event()
        web.settle(SettledRow(task.id, worker, 1, "succeeded"), done.set)
        await done.wait()
