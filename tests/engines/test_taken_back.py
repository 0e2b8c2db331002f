"""A worker wrongly thought dead: what it takes back goes on, and is not started twice."""

import asyncio
from pathlib import Path

import pytest

from afterwards.limits import Limits
from afterwards.model import Task, new_task_id
from afterwards.process import Process
from afterwards.registry import task
from afterwards.store.database import Database
from afterwards.store.tasks import Store

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
    process = Process(store, Limits())
    assert process.worker is not None
    await process.begin()
    first, second = (
        Task(new_task_id(), "is_in_no_hurry", is_in_no_hurry, is_async=True, args=(number,))
        for number in range(2)
    )
    await process.accept([first])
    process.start([first])
    # As another does, who thinks this worker dead.
    await store.forget([*await store.beats()])
    assert [row.id for row in await store.rescue()] == [first.id]
    await process.accept([second])
    await process.worker.claim()
    may_end.set()
    process.start([second])
    assert [await until_settled(store, each.id) for each in (first, second)] == [
        "succeeded",
        "succeeded",
    ]
    assert sorted(begun) == ["0", "1"]
    await process.drain(5)
    await database.close()
