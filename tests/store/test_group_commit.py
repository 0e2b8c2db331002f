"""The group commit: who shares one, while the database is away, and with an unwritable row."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Mapping
from contextlib import closing
from pathlib import Path

import pytest

from afterwards.store import engines, group_commit
from afterwards.store.database import Database
from afterwards.store.failures import DatabaseUnavailable
from afterwards.store.given import Rows, SettledRow
from afterwards.store.tasks import Store
from tests.store.rows import row, settled

pytestmark = pytest.mark.anyio

ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)


@pytest.fixture
async def store(database_url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Store]:
    """A store with two tasks that worker `a` runs, on a database that is soon given up on."""
    patient = Database(database_url)
    await patient.make_tables()
    await patient.close()
    monkeypatch.setattr(engines, "STATEMENT_SECONDS", 0.2)
    database = Database(database_url)
    store = Store(database)
    await store.register("a")
    await store.enqueue([row(id="task-1", worker="a"), row(id="task-2", worker="a")])
    yield store
    await store.close()
    await database.close()


async def states(store: Store) -> dict[str, str]:
    found = {id: await store.get(id) for id in ("task-1", "task-2")}
    return {id: each.state for id, each in found.items() if each is not None}


@ON_SQLITE
async def test_settles_outlive_an_outage(store: Store, tmp_path: Path) -> None:
    done = asyncio.Event()
    with closing(sqlite3.connect(tmp_path / "service.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.settle(SettledRow("task-1", "a", 1, "succeeded"), done.set)
        for _ in range(2):  # clients hear of the outage at once, the settle goes on waiting
            with pytest.raises(DatabaseUnavailable, match="locked"):
                await store.enqueue([row()])
        assert not done.is_set()
        other.execute("COMMIT")
    async with asyncio.timeout(10):
        await done.wait()
    assert await states(store) == {"task-1": "succeeded", "task-2": "running"}


@ON_SQLITE
async def test_closing_drops_what_cannot_be_written(store: Store, tmp_path: Path) -> None:
    done = asyncio.Event()
    with closing(sqlite3.connect(tmp_path / "service.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        store.settle(SettledRow("task-1", "a", 1, "succeeded"), done.set)
        async with asyncio.timeout(10):
            await store.close()
        other.execute("COMMIT")
    assert not done.is_set()
    assert (await states(store))["task-1"] == "running"  # for a rescue


async def test_an_unwritable_settle_fails_alone(
    store: Store, caplog: pytest.LogCaptureFixture
) -> None:
    told = asyncio.Event()
    unwritable = SettledRow("task-1", "a", 1, "dead", 0, None, "ValueError", "\ud800")
    store.settle(unwritable, told.set)
    await settled(store, "task-2", "a")
    async with asyncio.timeout(10):
        await told.wait()
    assert await states(store) == {"task-1": "running", "task-2": "succeeded"}
    assert "the end of an attempt cannot be recorded" in caplog.text


async def test_several_stores_share_one_database(database_url: str) -> None:
    database = Database(database_url)
    await database.make_tables()
    stores = [Store(database) for _ in range(4)]
    await asyncio.gather(*(each.enqueue([row()]) for each in stores for _ in range(5)))
    assert await stores[0].count_due(100) == 20
    await database.close()


async def commits_after(crowd: int, monkeypatch: pytest.MonkeyPatch, store: Store) -> int:
    """Count the commits of two lone tasks, one after the other, after a commit of so many."""
    monkeypatch.setattr(group_commit, "CROWD_SECONDS", 0.5)
    await asyncio.gather(*(store.enqueue([row()]) for _ in range(crowd)))
    commits, write = [], Database.write_together

    async def counted(database: Database, batch: Mapping[str, Rows]) -> None:
        commits.append(batch)
        await write(database, batch)

    monkeypatch.setattr(Database, "write_together", counted)
    first = asyncio.ensure_future(store.enqueue([row()]))
    await asyncio.wait([first], timeout=0.05)
    await asyncio.gather(first, store.enqueue([row()]))
    return len(commits)


async def test_a_crowd_shares_the_next_commit(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert await commits_after(group_commit.CROWD + 1, monkeypatch, store) == 1


async def test_a_few_wait_for_nobody(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "CROWD", 1000)
    assert await commits_after(1, monkeypatch, store) == 2
