"""How many tasks a second a database takes: inserted, claimed and settled, but never run."""

import asyncio
import multiprocessing
import os
import secrets
import time
from concurrent.futures import ProcessPoolExecutor

from afterwards.model import Task, new_task_id
from afterwards.rows import check, row_of
from afterwards.store.database import Database
from afterwards.store.given import SettledRow
from afterwards.store.tasks import PUBLISH_AGAIN_SECONDS, Store
from benchmarks import apps

PROCESSES = os.cpu_count() or 1
# In each process: with the one that inserts for all of them as many as the pool keeps connected.
CALLERS = 4
TASKS = 2_000  # in each process


def rate(database_url: str) -> float:
    """Put tasks through the database from several processes at once; return the rate of all."""
    spawning = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(PROCESSES, mp_context=spawning) as pool:
        times = list(pool.map(_pass_through, [database_url] * PROCESSES))
    began, ended = min(began for began, _ in times), max(ended for _, ended in times)
    return PROCESSES * CALLERS * (TASKS // CALLERS) / (ended - began)


def _pass_through(database_url: str) -> tuple[float, float]:
    return asyncio.run(_pass_all_through(Database(database_url)))


async def _pass_all_through(database: Database) -> tuple[float, float]:
    web = Store(database)  # what is asked at once shares commits, as in a process of the service
    await asyncio.gather(*(_pass(web, 1) for _ in range(CALLERS)))  # connects
    began = time.monotonic()
    await asyncio.gather(*(_pass(web, TASKS // CALLERS) for _ in range(CALLERS)))
    ended = time.monotonic()
    await database.close()
    return began, ended


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
