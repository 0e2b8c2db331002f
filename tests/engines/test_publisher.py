"""The publisher: what a broker is told, and when."""

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from afterwards.brokers import Message
from afterwards.limits import Limits
from afterwards.model import Task, new_task_id
from afterwards.process import Process
from afterwards.registry import task
from afterwards.store.database import Database
from afterwards.store.tasks import Store

pytestmark = pytest.mark.anyio


@task()
async def does_nothing_elsewhere() -> None: ...


def new_task() -> Task:
    return Task(new_task_id(), "does_nothing_elsewhere", does_nothing_elsewhere, is_async=True)


class Told:
    """A broker that keeps what it is told."""

    address = "memory"

    def __init__(self) -> None:
        self.ids: list[str] = []

    def publish(self, batch: Sequence[Message]) -> None:
        self.ids.extend(each.id for each in batch)

    def is_empty(self) -> bool:
        return False


class TalkedAt(Told):
    """A broker to which there is always something more to say."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.get_running_loop()
        self.worker: Process | None = None

    def publish(self, batch: Sequence[Message]) -> None:
        super().publish(batch)
        if self.worker:
            asyncio.run_coroutine_threadsafe(self.answer_another(self.worker), self.loop).result()

    async def answer_another(self, worker: Process) -> None:
        worker.start([new_task()])


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite:///{tmp_path}/service.db")
    await database.make_tables()
    yield database
    await database.close()


@pytest.fixture
def store(database: Database) -> Store:
    return Store(database)


def publishing(store: Store, broker: Told) -> Process:
    return Process(store, Limits(), broker=broker)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110  # a thread of the worker's own changes it
            await asyncio.sleep(0.01)


async def test_what_was_answered_is_published_once(store: Store) -> None:
    broker = Told()
    worker = publishing(store, broker)
    await worker.begin()
    new = new_task()
    await worker.accept([new])
    worker.start([new])
    await until(lambda: new.id in broker.ids)
    await worker.drain(0)
    assert broker.ids == [new.id]


async def test_steady_load_delays_no_due_task(store: Store) -> None:
    broker = TalkedAt()
    worker = publishing(store, broker)
    await worker.begin()
    broker.worker = worker
    worker.start([new_task()])
    await until(lambda: len(broker.ids) > 5)
    due = new_task()
    await worker.accept([due])
    await store.not_published([due.id])
    await until(lambda: due.id in broker.ids)
    broker.worker = None
    await worker.drain(0)


async def test_a_script_leaves_publishing_to_others(store: Store) -> None:
    new = new_task()
    await publishing(store, Told()).accept([new])
    assert [row.id for row in await store.due_to_publish(10)] == [new.id]


async def test_a_callers_commit_is_published_soon(database: Database, store: Store) -> None:
    broker = Told()
    worker = publishing(store, broker)
    await worker.begin()
    new = new_task()
    async with database.transaction() as connection:
        await worker.accept_within(connection, [new])
    await until(lambda: new.id in broker.ids)
    await worker.drain(0)
