"""The consumer: what runs tasks that a broker names, without a broker here."""

import asyncio
from pathlib import Path

import pytest

from afterwards.brokers.consumer import Consumer
from afterwards.limits import Limits
from afterwards.model import Delivery, Task, new_task_id
from afterwards.registry import task
from afterwards.rows import check, row_of
from afterwards.store import tasks
from afterwards.store.database import Database
from afterwards.store.tasks import Store
from afterwards.tracing import NO_TRACING

pytestmark = pytest.mark.anyio


@task("consumed")
async def consumed() -> str:
    return "done"


async def queued(database: Database, count: int) -> list[str]:
    new = [Task(new_task_id(), "consumed", consumed, is_async=True) for _ in range(count)]
    await Store(database).enqueue([row_of(each, check(each)[1]) for each in new])
    return [each.id for each in new]


async def states(url: str, ids: list[str]) -> list[tuple[str, str | None]]:
    database = Database(url)
    rows = [await Store(database).get(id) for id in ids]
    await database.close()
    return [(row.state, row.result) for row in rows if row]


async def test_ended_tasks_are_settled_at_shutdown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:///{tmp_path}/service.db"
    monkeypatch.setattr(tasks, "SETTLE_PATIENCE", 60.0)  # none is settled before the end
    database = Database(url)
    await database.make_tables()
    ids = await queued(database, 3)
    consumer = Consumer(database, Limits(), NO_TRACING, family="test-")
    await consumer.begin()
    words = await asyncio.gather(*(consumer.run(id, "consumed", Delivery("")) for id in ids))
    assert words == ["succeeded"] * 3
    await consumer.end()
    assert await states(url, ids) == [("succeeded", '"done"')] * 3
    assert "cuts off" not in caplog.text


async def test_a_task_named_twice_runs_once(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path}/service.db")
    await database.make_tables()
    [id] = await queued(database, 1)
    consumer = Consumer(database, Limits(), NO_TRACING, family="test-")
    await consumer.begin()
    words = await asyncio.gather(*(consumer.run(id, "consumed", Delivery("")) for _ in range(5)))
    await consumer.end()
    assert sorted(words) == ["refused"] * 4 + ["succeeded"]
