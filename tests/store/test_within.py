"""Rows that are inserted in a transaction of the caller's own, by an engine of the caller's own."""

import importlib.util
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import text
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncEngine, AsyncSession, create_async_engine

from afterwards.store.database import Database
from afterwards.store.failures import WrongConnection
from afterwards.store.tasks import Store
from tests.databases import empty_database
from tests.store.rows import row

pytestmark = pytest.mark.anyio

DRIVERS = ["sqlite+aiosqlite", "postgresql+asyncpg", "postgresql+psycopg"]


@pytest.fixture(params=DRIVERS)
def driver(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if importlib.util.find_spec(name.partition("+")[2]) is None:
        pytest.skip(f"{name} is not installed")
    return name


@pytest.fixture
async def database_url(driver: str, tmp_path: Path) -> AsyncIterator[str]:
    kind = "sqlite" if driver.startswith("sqlite") else "postgres"
    async with empty_database(kind, tmp_path) as url:
        yield url


@pytest.fixture
async def engine(driver: str, database: Database, database_url: str) -> AsyncIterator[AsyncEngine]:
    """An engine as an application makes it, with a table of its own."""
    engine = create_async_engine(make_url(database_url).set(drivername=driver))
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE orders (id VARCHAR)"))
    yield engine
    await engine.dispose()


async def order(within: AsyncSession, id: str) -> None:
    await within.execute(text("INSERT INTO orders VALUES (:id)"), {"id": id})


async def stored(database: Database) -> tuple[set[str], set[str]]:
    orders = await database.all("SELECT id FROM orders")
    tasks = await database.all("SELECT id FROM {tasks}")
    return {each.id for each in orders}, {each.id for each in tasks}


async def test_a_connection_commits_both(database: Database, engine: AsyncEngine) -> None:
    rows = [
        row(),
        row(delay_us=5_000_000, follows="x", in_thread=True, arguments='{"a": "\xfc:b"}'),
    ]
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO orders VALUES ('1')"))
        await Store(database).enqueue_within(connection, rows)
    assert await stored(database) == ({"1"}, {each.id for each in rows})
    kept = await Store(database).get(rows[1].id)
    assert (kept.arguments, kept.follows, bool(kept.in_thread)) == ('{"a": "\xfc:b"}', "x", True)


async def test_a_connection_rolls_both_back(database: Database, engine: AsyncEngine) -> None:
    async with engine.connect() as connection:
        await connection.execute(text("INSERT INTO orders VALUES ('1')"))
        await Store(database).enqueue_within(connection, [row()])
        await connection.rollback()
    assert await stored(database) == (set(), set())


async def test_a_session_commits_both(database: Database, engine: AsyncEngine) -> None:
    new = row()
    async with AsyncSession(engine) as session:
        await order(session, "1")
        await Store(database).enqueue_within(session, [new])
        assert (await stored(database)) == (set(), set())  # not before
        await session.commit()
    assert await stored(database) == ({"1"}, {new.id})


async def test_a_session_rolls_both_back(database: Database, engine: AsyncEngine) -> None:
    async with AsyncSession(engine) as session:
        await order(session, "1")
        await Store(database).enqueue_within(session, [row()])
        await session.rollback()
    assert await stored(database) == (set(), set())


async def test_a_savepoint_takes_its_task_along(database: Database, engine: AsyncEngine) -> None:
    new = row()
    async with AsyncSession(engine) as session:
        await order(session, "1")
        await Store(database).enqueue_within(session, [new])
        nested = await session.begin_nested()
        await Store(database).enqueue_within(session, [row()])
        await nested.rollback()
        await session.commit()
    assert await stored(database) == ({"1"}, {new.id})


async def test_another_database_is_named(
    database: Database, driver: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    kind = "sqlite" if driver.startswith("sqlite") else "postgres"
    async with empty_database(kind, tmp_path_factory.mktemp("other")) as url:
        engine = create_async_engine(make_url(url).set(drivername=driver))
        async with engine.connect() as connection:
            with pytest.raises(WrongConnection, match=r"within: .* has no table afterwards_tasks"):
                await Store(database).enqueue_within(connection, [row()])
        await engine.dispose()
    assert await database.all("SELECT id FROM {tasks}") == []


@pytest.mark.parametrize("driver", ["postgresql+asyncpg"], indirect=True)
async def test_another_kind_of_database_is_named(database: Database, tmp_path: Path) -> None:
    other = create_async_engine(f"sqlite+aiosqlite:///{tmp_path}/other.db")
    async with other.connect() as connection:
        with pytest.raises(WrongConnection, match="takes a connection or a session"):
            await Store(database).enqueue_within(connection, [row()])
    await other.dispose()


async def test_wrong_rows_are_no_wrong_connection(database: Database, engine: AsyncEngine) -> None:
    new = row()
    await Store(database).enqueue([new])
    async with engine.connect() as connection:
        with pytest.raises(Exception, match=r"(?i)unique") as raised:
            await Store(database).enqueue_within(connection, [new])
        await connection.rollback()
    assert not isinstance(raised.value, WrongConnection)
