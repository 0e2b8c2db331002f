"""A worker that was thought dead and does not know it: what it takes back goes on, and is not started beside itself."""

import asyncio
from contextlib import nullcontext
from pathlib import Path

import pytest

from afterwards.model import Task, new_task_id
from afterwards.registry import task
from afterwards.slots import LocalEngine
from afterwards.store.database import Database
from afterwards.store.tasks import Store
from afterwards.worker import Worker

pytestmark = pytest.mark.anyio

begun: list[str] = []
may_end = asyncio.Event()


@task()
async def is_in_no_hurry(number: int) -> int:
    begun.append(f"{number}")
    await may_end.wait()
    return number


async def until_settled(store: Store, id: str) -> str:
    async with asyncio.timeout(20):
        while (row := await store.get(id)) is None or row.finished_at is None:  # noqa: ASYNC110  # it is the row that changes
            await asyncio.sleep(0.01)
    return str(row.state)


async def test_what_is_taken_back_goes_on(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/service.db")
    store = Store(database)
    engine = LocalEngine(
        max_running=10, threads=1, timeout=60, surrounding=lambda attempt: nullcontext()
    )
    worker = Worker(store, engine, max_queued=10, keep_days=1)
    await worker.begin()
    first, second = (
        Task(new_task_id(), "is_in_no_hurry", is_in_no_hurry, is_async=True, args=(number,))
        for number in range(2)
    )
    await worker.accept([first])
    worker.start([first])
    await store.bury([*await store.beats()])
    assert [row.id for row in await store.rescue()] == [
        first.id
    ]  # as another does, who thinks this worker dead
    await worker.accept([second])
    await worker.claim()
    may_end.set()
    worker.start([second])
    assert [await until_settled(store, each.id) for each in (first, second)] == [
        "succeeded",
        "succeeded",
    ]
    assert sorted(begun) == ["0", "1"]
    await worker.drain(5)
    await database.close()
