"""Tables of versions without a prefix, full of rows, become ours; nobody who lives is disturbed."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import text

from afterwards.store import Filter, takeover
from afterwards.store.database import Database
from afterwards.store.failures import DatabaseUnavailable, SchemaRefused
from afterwards.store.migrations import MIGRATIONS
from afterwards.store.statements import PRUNE_ANSWERS, PRUNE_TASKS
from afterwards.store.tasks import Store
from afterwards.turns import Limit
from tests.store.rows import settled

pytestmark = pytest.mark.anyio

# As SQLAlchemy made them at the commits f2a0de9 and 2ae3707.
OLD_TABLES = [
    """CREATE TABLE answers (key VARCHAR NOT NULL, fingerprint VARCHAR NOT NULL,
        created_at BIGINT NOT NULL, status INTEGER, headers VARCHAR, body {bytes},
        PRIMARY KEY (key))""",
    """CREATE TABLE tasks (id VARCHAR NOT NULL, name VARCHAR NOT NULL, arguments VARCHAR NOT NULL,
        in_thread BOOLEAN NOT NULL, carrier VARCHAR NOT NULL, state VARCHAR NOT NULL,
        attempt INTEGER NOT NULL, max_attempts INTEGER NOT NULL, crashes INTEGER NOT NULL,
        worker VARCHAR, created_at BIGINT NOT NULL, run_at BIGINT NOT NULL,
        hand_off_at BIGINT DEFAULT '0' NOT NULL, follows VARCHAR, started_at BIGINT,
        finished_at BIGINT, result VARCHAR, error_kind VARCHAR, error_message VARCHAR,
        PRIMARY KEY (id))""",
    "CREATE TABLE workers (id VARCHAR NOT NULL, beats BIGINT NOT NULL, PRIMARY KEY (id))",
    "CREATE INDEX tasks_following ON tasks (follows) WHERE follows IS NOT NULL",
    "CREATE INDEX tasks_running ON tasks (worker) WHERE state = 'running'",
    "CREATE INDEX tasks_to_hand_off ON tasks (hand_off_at) WHERE state IN ('queued', 'retrying')",
    "CREATE INDEX tasks_pruned ON tasks (finished_at) WHERE state IN ('succeeded', 'cancelled')",
]
INDEXES = {
    "f2a0de9": [
        "CREATE INDEX tasks_waiting ON tasks (in_thread, run_at)"
        " WHERE state IN ('queued', 'retrying')"
    ],
    "2ae3707": [
        "CREATE INDEX tasks_next ON tasks (in_thread, crashes, name, run_at)"
        " WHERE coalesce(follows, state) IN ('queued', 'retrying')",
        "CREATE INDEX ix_answers_created_at ON answers (created_at)",
    ],
}
ROWS = [
    # state, attempt, crashes, worker, follows, started_at, finished_at, result, error_kind
    ("queued", 0, 0, None, None, None, None, None, None),
    ("queued", 0, 0, None, "task-0-running", None, None, None, None),
    ("queued", 0, 2, None, None, 3, None, None, None),
    ("retrying", 2, 0, "gone", None, 3, None, None, "ValueError"),
    ("running", 1, 0, "gone", None, 3, None, None, None),
    ("succeeded", 1, 0, "gone", None, 3, 4, '{"a": "\xfc"}', None),
    ("dead", 5, 0, "gone", None, 3, 4, None, "ValueError"),
    ("cancelled", 0, 0, None, None, None, 4, None, None),
]
COLUMNS = [
    *("state", "attempt", "crashes", "worker", "follows"),
    *("started_at", "finished_at", "result", "error_kind"),
]
INSERT = f"""
INSERT INTO tasks (id, name, arguments, in_thread, carrier, max_attempts, created_at, run_at,
    hand_off_at, {", ".join(COLUMNS)})
VALUES (:id, 'old', '{{{{"n": 1}}}}', false, 'a trace', 5, 1, 2, 2, :{", :".join(COLUMNS)})
"""


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is silent for a moment is dead."""
    monkeypatch.setattr(takeover, "SILENT_SECONDS", 0.3)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    """A database that nobody has brought to this version."""
    database = Database(database_url)
    yield database
    await database.close()


async def execute(database: Database, *statements: str, **values: object) -> None:
    async with database.migrating() as connection:
        for statement in statements:
            await connection.execute(database.sql(statement), values)


async def filled(database: Database, version: str, copies: int = 5) -> dict[str, tuple[Any, ...]]:
    """Make the old tables, with so many rows of each kind, and give what a row says by its id."""
    await execute(database, *OLD_TABLES, *INDEXES[version])
    rows = {}
    async with database.transaction() as connection:
        for copy in range(copies):
            for number, row in enumerate(ROWS):
                id = f"task-{copy}-{row[0] if row[0] == 'running' else number}"
                values = dict(zip(COLUMNS, row, strict=True), id=id)
                await connection.execute(database.sql(INSERT), values)
                rows[id] = row
    await execute(
        database,
        "INSERT INTO answers (key, fingerprint, created_at, status, headers, body)"
        " VALUES ('a key', 'f', 7, 202, '[]', :body)",
        body=b"\0an answer",
    )
    return rows


NAMES = {
    "sqlite": "SELECT name FROM sqlite_master WHERE type = :kind AND name NOT LIKE 'sqlite%'",
    "postgresql": "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
    " AND relkind = CASE WHEN :kind = 'table' THEN 'r' ELSE 'i' END",
}


async def names(database: Database, kind: str) -> set[str]:
    async with database.reading() as connection:
        query = text(NAMES[connection.dialect.name])
        return set((await connection.execute(query, {"kind": kind})).scalars())


async def taken_over(database: Database) -> None:
    async with asyncio.timeout(30):
        while True:
            try:
                return await database.make_tables()
            except SchemaRefused:
                raise
            except DatabaseUnavailable:
                await asyncio.sleep(0.05)


@pytest.mark.parametrize("version", INDEXES)
async def test_every_row_is_kept(database: Database, version: str) -> None:
    rows = await filled(database, version)
    await database.make_tables()
    found = await database.all("SELECT * FROM {tasks}")
    assert {row.id: tuple(getattr(row, name) for name in COLUMNS) for row in found} == rows
    kept = {(row.name, row.arguments, row.carrier, row.run_at, row.publish_at) for row in found}
    assert kept == {("old", '{"n": 1}', "a trace", 2, 2)}
    [answer] = await database.all("SELECT * FROM {answers}")
    assert (answer.key, answer.status, bytes(answer.body)) == ("a key", 202, b"\0an answer")


@pytest.mark.parametrize("version", INDEXES)
async def test_what_was_waiting_is_run(database: Database, version: str) -> None:
    await filled(database, version, copies=1)
    await database.make_tables()
    store = Store(database)
    await store.register("new")
    assert [row.id for row in await store.rescue()] == ["task-0-running"]
    free = {Limit.SLOTS: 100, Limit.SUSPECTS: 100, Limit.ALONE: 100}
    claimed = await store.claim("new", in_thread=False, free=free)
    assert {row.id for row in claimed} == {"task-0-0", "task-0-2", "task-0-3", "task-0-running"}
    await settled(store, "task-0-running", "new")
    [follower] = await store.claim("new", in_thread=False, free=free)
    assert follower.id == "task-0-1"
    assert await store.retry("task-0-6")
    assert await store.prune(PRUNE_TASKS, 1) == 2
    assert await store.prune(PRUNE_ANSWERS, 1) == 1
    await store.close()


@pytest.mark.parametrize("version", INDEXES)
async def test_nothing_bears_an_old_name(database: Database, version: str) -> None:
    await filled(database, version)
    await database.make_tables()
    for kind in ("table", "index"):
        assert all(name.startswith("afterwards_") for name in await names(database, kind))


async def test_a_takeover_equals_a_new_database(database: Database, database_url: str) -> None:
    await filled(database, "f2a0de9")
    await database.make_tables()
    other = Database(database_url, prefix="new_")
    await other.make_tables()
    for kind in ("table", "index"):
        by_prefix: dict[str, set[str]] = {"afterwards": set(), "new": set()}
        for name in await names(database, kind):
            prefix, _, rest = name.partition("_")
            by_prefix[prefix].add(rest)
        assert by_prefix["afterwards"] == by_prefix["new"]
    await other.close()


async def test_a_brokerless_version_is_taken_over(database: Database) -> None:
    await filled(database, "f2a0de9")
    await execute(database, "DROP INDEX tasks_to_hand_off", "DROP INDEX tasks_following")
    for column in ("hand_off_at", "follows"):
        await execute(database, f"ALTER TABLE tasks DROP COLUMN {column}")
    await database.make_tables()
    assert len(await Store(database).due_to_publish(100)) == 5 * 4


# --- those who live ---


async def test_a_living_process_is_left_alone(database: Database, soon: None) -> None:
    await filled(database, "2ae3707")
    await execute(database, "INSERT INTO workers VALUES ('old-1', 5)")
    for _ in range(10):
        with pytest.raises(DatabaseUnavailable, match=r"process old-1 still runs .* stopped first"):
            await database.make_tables()
        await execute(database, "UPDATE workers SET beats = beats + 1")
        await asyncio.sleep(0.1)
    assert await names(database, "table") == {"tasks", "workers", "answers"}
    assert len(await database.all("SELECT id FROM tasks WHERE worker = 'gone'")) == 5 * 4


async def test_an_ended_process_is_not_awaited(database: Database) -> None:
    await filled(database, "2ae3707")
    await database.make_tables()
    assert await database.schema_version() == MIGRATIONS[-1].number


async def test_a_dead_process_is_waited_for(database: Database, soon: None) -> None:
    await filled(database, "2ae3707", copies=1)
    await execute(database, "INSERT INTO workers VALUES ('gone', 5)")
    with pytest.raises(DatabaseUnavailable):
        await database.make_tables()
    await taken_over(database)
    assert [row.id for row in await Store(database).rescue()] == ["task-0-running"]


async def test_who_looks_rarely_hears_no_silence(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(takeover, "SILENT_SECONDS", 0.0)
    monkeypatch.setattr(takeover, "BLIND_SECONDS", -1.0)
    await filled(database, "2ae3707")
    await execute(database, "INSERT INTO workers VALUES ('old-1', 5)")
    for _ in range(3):
        with pytest.raises(DatabaseUnavailable, match="old-1"):
            await database.make_tables()


async def test_simultaneous_takeovers_do_no_harm(
    database: Database, database_url: str, soon: None
) -> None:
    rows = await filled(database, "f2a0de9")
    await execute(database, "INSERT INTO workers VALUES ('gone', 5)")
    others = [Database(database_url) for _ in range(4)]
    await asyncio.gather(*map(taken_over, others))
    assert len(await Store(database).page(Filter(), limit=1000)) == len(rows)
    await asyncio.gather(*(other.close() for other in others))


# --- what is another's ---

FOREIGN = [
    "CREATE TABLE tasks (id INTEGER PRIMARY KEY, title VARCHAR)",
    "CREATE TABLE workers (id INTEGER PRIMARY KEY, wage INTEGER)",
    "INSERT INTO tasks VALUES (1, 'buy milk')",
]


async def test_an_applications_own_tasks_are_untouched(database: Database) -> None:
    await execute(database, *FOREIGN)
    await database.make_tables()
    assert await database.all("SELECT * FROM tasks") == [(1, "buy milk")]
    assert await Store(database).page(Filter(), limit=9) == []


async def test_one_column_more_makes_it_anothers(database: Database) -> None:
    await filled(database, "2ae3707")
    await execute(database, "ALTER TABLE tasks ADD COLUMN priority INTEGER")
    await database.make_tables()
    assert await Store(database).page(Filter(), limit=9) == []
    assert len(await database.all("SELECT priority FROM tasks")) == 5 * len(ROWS)


async def test_a_chosen_prefix_takes_nothing_over(database: Database, database_url: str) -> None:
    rows = await filled(database, "2ae3707")
    other = Database(database_url, prefix="shop_")
    await other.make_tables()
    assert await Store(other).page(Filter(), limit=9) == []
    await other.close()
    await database.make_tables()
    assert len(await Store(database).page(Filter(), limit=1000)) == len(rows)


async def test_no_prefix_keeps_the_old_tables(database: Database, database_url: str) -> None:
    rows = await filled(database, "f2a0de9")
    bare = Database(database_url, prefix="")
    await bare.make_tables()
    assert len(await Store(bare).page(Filter(), limit=1000)) == len(rows)
    assert "tasks_waiting" not in await names(bare, "index")
    await bare.close()


@pytest.mark.parametrize("table", ["tasks", "workers", "answers", "version"])
async def test_a_foreign_namesake_table_is_refused(database: Database, table: str) -> None:
    await execute(
        database,
        f"CREATE TABLE afterwards_{table} (id INTEGER PRIMARY KEY, title VARCHAR)",
        f"INSERT INTO afterwards_{table} VALUES (1, 'buy milk')",
    )
    with pytest.raises(SchemaRefused, match=f"a table afterwards_{table} .*another table_prefix"):
        await database.make_tables()
    assert await database.all(f"SELECT * FROM afterwards_{table}") == [(1, "buy milk")]
    assert await names(database, "table") == {f"afterwards_{table}"}
