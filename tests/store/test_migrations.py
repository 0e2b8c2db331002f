"""The tables are made once and brought on step by step, under whatever prefix; never back."""

import asyncio
from pathlib import Path

import pytest

from afterwards.model import new_task_id
from afterwards.store import Filter, engines, migrations
from afterwards.store.database import Database
from afterwards.store.failures import DatabaseUnavailable, SchemaRefused
from afterwards.store.migrations import MIGRATIONS, Migration
from afterwards.store.tasks import Store
from tests.databases import empty_database
from tests.store.rows import row

pytestmark = pytest.mark.anyio

NEXT = MIGRATIONS[-1].number + 1


@pytest.fixture
def newer(monkeypatch: pytest.MonkeyPatch) -> None:
    """This code is of the version after the next."""
    steps = [
        Migration(NEXT, "add a column", ("ALTER TABLE {tasks} ADD COLUMN urgency INTEGER",)),
        Migration(NEXT + 1, "fill it", ("UPDATE {tasks} SET urgency = max_attempts + 1",)),
    ]
    monkeypatch.setattr(migrations, "MIGRATIONS", [*MIGRATIONS, *steps])


async def test_steps_are_numbered_from_one() -> None:
    assert [step.number for step in MIGRATIONS] == list(range(1, len(MIGRATIONS) + 1))
    assert all(step.what for step in MIGRATIONS)


async def test_without_tables_there_is_no_version(database_url: str, tmp_path: Path) -> None:
    database = Database(database_url)
    assert await database.schema_version() is None
    assert not (tmp_path / "service.db").exists()  # who asks makes no file
    await database.make_tables()
    assert await Store(database).schema_version() == MIGRATIONS[-1].number
    await database.close()


async def test_missing_steps_are_applied_in_order(
    database: Database, request: pytest.FixtureRequest
) -> None:
    await Store(database).enqueue([row(max_attempts=4)])
    request.getfixturevalue("newer")
    for _ in range(2):
        await database.make_tables()
    assert await database.all("SELECT urgency FROM {tasks}") == [(5,)]
    assert await database.schema_version() == NEXT + 1


async def test_new_tables_get_every_step(newer: None, database: Database) -> None:
    assert await database.all("SELECT urgency FROM {tasks}") == []
    assert await database.schema_version() == NEXT + 1


async def test_simultaneous_starts_apply_each_step_once(
    database: Database, database_url: str, request: pytest.FixtureRequest
) -> None:
    request.getfixturevalue("newer")
    others = [Database(database_url) for _ in range(5)]
    await asyncio.gather(*(other.make_tables() for other in others))
    assert await database.schema_version() == NEXT + 1
    await asyncio.gather(*(other.close() for other in others))


async def test_a_step_that_fails_leaves_nothing(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken = ("ALTER TABLE {tasks} ADD COLUMN urgency INTEGER", "UPDATE {tasks} SET nothing = 1")
    steps = [*MIGRATIONS, Migration(NEXT, "fail midway", broken)]
    monkeypatch.setattr(migrations, "MIGRATIONS", steps)
    with pytest.raises(Exception, match="nothing"):
        await database.make_tables()
    assert await database.schema_version() == NEXT - 1
    monkeypatch.undo()
    with pytest.raises(Exception, match="urgency"):
        await database.all("SELECT urgency FROM {tasks}")


async def test_a_newer_database_is_left_alone(database: Database) -> None:
    await database.change("UPDATE {version} SET number = 99")
    with pytest.raises(SchemaRefused, match=r"of version 99, .*: deploy the newer code again"):
        await database.make_tables()
    assert await database.schema_version() == 99


async def test_an_unchanging_start_awaits_no_writer(database: Database) -> None:
    async with database.migrating():
        await database.make_tables()


async def test_an_index_outlasts_the_statement_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with empty_database("postgres", tmp_path) as url:
        first = Database(url)
        await first.make_tables()
        index = ("CREATE INDEX {answers}_status ON {answers} (status)",)
        steps = [*MIGRATIONS, Migration(NEXT, "add an index", index)]
        monkeypatch.setattr(migrations, "MIGRATIONS", steps)
        monkeypatch.setattr(engines, "STATEMENT_SECONDS", 2.0)
        second = Database(url)
        async with first.transaction() as holding:  # the index waits for the end of this
            insert = "INSERT INTO {answers} (key, fingerprint, created_at) VALUES ('k', 'f', 0)"
            await holding.execute(first.sql(insert))
            making = asyncio.create_task(second.make_tables())
            await asyncio.wait([making], timeout=4)
        await making
        await asyncio.gather(first.close(), second.close())


# --- prefix ---


async def test_prefixes_share_only_the_database(database_url: str) -> None:
    databases = [Database(database_url, prefix=prefix) for prefix in ("", "a_", "a_b_", "z9")]
    await asyncio.gather(*(database.make_tables() for database in databases))
    stores = [Store(database) for database in databases]
    ids = [new_task_id() for _ in stores]
    for store, id in zip(stores, ids, strict=True):
        await store.enqueue([row(id=id)])
        await store.register(id)
    for store, id in zip(stores, ids, strict=True):
        assert [each.id for each in await store.page(Filter(), limit=9)] == [id]
        assert await store.beats() == {id: 0}
    await stores[1].cancel_all(Filter())
    found = [await store.get(id) for store, id in zip(stores, ids, strict=True)]
    assert [each.state for each in found] == ["queued", "cancelled", "queued", "queued"]
    await asyncio.gather(*(database.close() for database in databases))


async def test_tables_and_indexes_bear_the_prefix(database: Database) -> None:
    listing = {
        "sqlite": "SELECT name FROM sqlite_master WHERE name NOT LIKE 'sqlite_%'",
        "postgresql": "SELECT relname FROM pg_class WHERE relkind IN ('r', 'i')"
        " AND relnamespace = CAST('public' AS regnamespace)",
    }
    async with database.reading() as connection:
        names = await connection.exec_driver_sql(listing[connection.dialect.name])
        assert all(name.startswith("afterwards_") for name in names.scalars())


@pytest.mark.parametrize("prefix", ["Shop_", "a-b", "a b", '"', "9a", "\xe4_", "a\n", "x" * 46])
def test_a_wrong_prefix_names_the_argument(prefix: str) -> None:
    with pytest.raises(ValueError, match=r"table_prefix: .* takes lower-case letters, digits"):
        Database("sqlite:///none.db", prefix=prefix)


async def test_the_longest_prefix_is_cut_nowhere(database_url: str) -> None:
    names = ["x" * 44 + last for last in "ab"]
    databases = [Database(database_url, prefix=name) for name in names]
    for database in databases:
        await database.make_tables()
        assert await database.schema_version() == MIGRATIONS[-1].number
        await database.close()


async def test_tables_that_vanish_are_an_outage(database: Database) -> None:
    await database.change("DROP TABLE {tasks}")
    with pytest.raises(DatabaseUnavailable):
        await Store(database).enqueue([row()])
