"""A Postgres that is gone or says nothing: its connections are given up, once and at once."""

import asyncio
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from sqlalchemy import text

from afterwards.store import engines, postgres_writer, statements
from afterwards.store.database import Database
from afterwards.store.driver import CLOSING_SECONDS, HastyConnection
from afterwards.store.failures import DatabaseUnavailable, OutcomeUnknown
from tests.databases import empty_database
from tests.proxy import Proxy
from tests.store.rows import row

pytestmark = pytest.mark.anyio


@pytest.fixture
async def behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[tuple[Database, Proxy]]:
    """A database that is soon given up, behind a proxy."""
    monkeypatch.setattr(engines, "STATEMENT_SECONDS", 0.7)
    async with empty_database("postgres", tmp_path) as url:
        with Proxy(url) as between:
            database = Database(between.url)
            await database.make_tables()
            yield database, between
            between.thaw()
            await database.close()


async def ask_at_once(database: Database) -> list[Any]:
    """Ask on each connection of the pool; give them, as the driver has them."""
    together = asyncio.Barrier(engines.CONNECTIONS)

    async def ask() -> Any:
        async with database.transaction() as connection:
            await connection.execute(text("SELECT 1"))
            await together.wait()
            return (await connection.get_raw_connection()).driver_connection

    return await asyncio.gather(*(ask() for _ in range(engines.CONNECTIONS)))


async def insert(database: Database) -> str:
    """Insert a task in a group commit; return its id."""
    new = row()
    await database.write_together({statements.ENQUEUE: [new]})
    return new.id


async def ids(database: Database) -> list[str]:
    return [each.id for each in await database.all("SELECT id FROM {tasks}")]


async def test_a_restart_fails_no_request(behind: tuple[Database, Proxy]) -> None:
    database, between = behind
    await insert(database)
    before = await ask_at_once(database)
    are_closed = asyncio.Barrier(len(before) + 1)

    async def is_closed(_: Any) -> None:
        await are_closed.wait()

    for each in before:
        each.add_termination_listener(is_closed)
    between.cut()
    await asyncio.wait_for(are_closed.wait(), 10)
    assert not {*before} & {*await ask_at_once(database)}
    await insert(database)
    assert len(await ids(database)) == 2


async def test_whole_connections_are_kept(behind: tuple[Database, Proxy]) -> None:
    database, _ = behind
    before = await ask_at_once(database)
    assert {*before} == {*await ask_at_once(database)}


async def test_silence_fails_one_request(behind: tuple[Database, Proxy]) -> None:
    database, between = behind
    before = await ask_at_once(database)
    between.stall(engines.CONNECTIONS)
    with pytest.raises(DatabaseUnavailable):
        await ids(database)
    for _ in before:
        assert await ids(database) == []
    assert not {*before} & {*await ask_at_once(database)}


async def test_a_silent_commit_is_made_once(behind: tuple[Database, Proxy]) -> None:
    database, between = behind
    first = await insert(database)
    between.stall(1)
    second = await insert(database)  # on a new connection
    between.thaw()  # the first try reaches what is left of the session
    last = await insert(database)
    assert sorted(await ids(database)) == sorted([first, second, last])


async def test_commits_survive_the_end_of_a_session(behind: tuple[Database, Proxy]) -> None:
    database, _ = behind
    written = [await insert(database)]
    async with database.transaction() as blocking:  # so that the session is ended in its midst
        await blocking.execute(database.sql("LOCK TABLE {tasks}"))
        inserting = asyncio.create_task(insert(database))
        ending = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE NOT granted"
        while not (await blocking.execute(text(ending))).all():  # noqa: ASYNC110  # Postgres tells nobody
            await asyncio.sleep(0.01)
    written.append(await inserting)
    assert sorted(await ids(database)) == sorted(written)


async def test_a_silent_server_refuses_in_time(behind: tuple[Database, Proxy]) -> None:
    database, between = behind
    await insert(database)
    between.freeze()
    with pytest.raises(OutcomeUnknown):
        await insert(database)


async def test_idle_writers_ask_who_listens(
    behind: tuple[Database, Proxy], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_writer, "IDLE_SECONDS", 0.0)
    database, between = behind
    written = [await insert(database)]
    between.stall(1)
    written += [await insert(database), await insert(database)]
    assert {*await ids(database)} == {*written}


async def test_a_mistake_is_not_the_databases(behind: tuple[Database, Proxy]) -> None:
    database, _ = behind
    new = row()
    await database.write_together({statements.ENQUEUE: [new]})
    with pytest.raises(asyncpg.UniqueViolationError):
        await database.write_together({statements.ENQUEUE: [new]})
    await insert(database)
    assert len(await ids(database)) == 2


async def test_a_silent_connection_closes_soon(tmp_path: Path) -> None:
    async with empty_database("postgres", tmp_path) as url:
        with Proxy(url) as between:
            connection = await asyncpg.connect(between.url, connection_class=HastyConnection)
            between.freeze()
            began = time.monotonic()
            async with asyncio.timeout(10 * CLOSING_SECONDS):
                with pytest.raises(TimeoutError):
                    await connection.close(timeout=60)
            assert time.monotonic() - began >= CLOSING_SECONDS / 2
            assert connection.is_closed()
