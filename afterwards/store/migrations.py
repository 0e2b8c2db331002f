"""The tables, made by numbered steps: each is applied once, in order, under a lock."""

from typing import Any, NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from afterwards.store.failures import SchemaRefused
from afterwards.store.sql import TABLES, Sql, listed
from afterwards.store.takeover import Columns, Earlier, foreign

INDEX_SECONDS = 600.0  # for an index on rows that there are already


class Migration(NamedTuple):
    """One step: its number, what it does, and the statements that do it."""

    number: int
    what: str
    statements: tuple[str, ...]


# A step that was released is never changed: databases are at every one of them.
MIGRATIONS = [
    Migration(
        1,
        "make the tables; those of versions without a prefix are taken over",
        (
            """CREATE TABLE IF NOT EXISTS {tasks} (
                id VARCHAR NOT NULL PRIMARY KEY,
                name VARCHAR NOT NULL,
                arguments VARCHAR NOT NULL, -- JSON, by parameter
                in_thread BOOLEAN NOT NULL, -- whether its function is a plain def
                carrier VARCHAR NOT NULL,
                state VARCHAR NOT NULL,
                attempt INTEGER NOT NULL, -- how many were started, but for those that do not count
                max_attempts INTEGER NOT NULL,
                crashes INTEGER NOT NULL,
                worker VARCHAR, -- who runs it, or ran it last
                created_at BIGINT NOT NULL,
                run_at BIGINT NOT NULL,
                publish_at BIGINT NOT NULL DEFAULT 0, -- when a broker is to be told of it (again)
                follows VARCHAR, -- the id of the task that must have ended before
                started_at BIGINT,
                finished_at BIGINT,
                result VARCHAR, -- JSON
                error_kind VARCHAR,
                error_message VARCHAR
            )""",
            """CREATE TABLE IF NOT EXISTS {workers} (
                id VARCHAR NOT NULL PRIMARY KEY,
                beats BIGINT NOT NULL -- counted, not timed: no clock makes the living look dead
            )""",
            """CREATE TABLE IF NOT EXISTS {answers} (
                key VARCHAR NOT NULL PRIMARY KEY, -- a client's Idempotency-Key
                fingerprint VARCHAR NOT NULL, -- of the request that it came with
                created_at BIGINT NOT NULL,
                status INTEGER, -- none until the answer is known
                headers VARCHAR, -- JSON; until then the ids of the tasks
                body {bytes}
            )""",
            # Each index holds only the rows that its question is about, so that a million settled
            # rows cost a claim nothing.
            "CREATE INDEX IF NOT EXISTS {tasks}_next ON {tasks} (in_thread, crashes, name, run_at)"
            " WHERE coalesce(follows, state) IN ('queued', 'retrying')",
            "CREATE INDEX IF NOT EXISTS {tasks}_to_publish ON {tasks} (publish_at)"
            " WHERE state IN ('queued', 'retrying')",
            "CREATE INDEX IF NOT EXISTS {tasks}_following ON {tasks} (follows)"
            " WHERE follows IS NOT NULL",
            "CREATE INDEX IF NOT EXISTS {tasks}_running ON {tasks} (worker)"
            " WHERE state = 'running'",
            "CREATE INDEX IF NOT EXISTS {tasks}_pruned ON {tasks} (finished_at)"
            " WHERE state IN ('succeeded', 'cancelled')",
            "CREATE INDEX IF NOT EXISTS {answers}_created_at ON {answers} (created_at)",
            "CREATE TABLE {version} (number INTEGER NOT NULL)",
            "INSERT INTO {version} (number) VALUES (0)",
        ),
    ),
    Migration(
        2,
        "write down what operators change",
        (
            """CREATE TABLE {changes} (
                id VARCHAR NOT NULL PRIMARY KEY,
                at BIGINT NOT NULL,
                who VARCHAR NOT NULL, -- a role and its token's fingerprint
                address VARCHAR NOT NULL,
                what VARCHAR NOT NULL,
                which VARCHAR NOT NULL -- JSON: ids of tasks, mostly
            )""",
            "CREATE INDEX {changes}_at ON {changes} (at)",
        ),
    ),
    Migration(
        3,
        "keep secret arguments apart, and find what has been dead for long",
        (
            # JSON by parameter, or encrypted; in `arguments` stand asterisks for them.
            "ALTER TABLE {tasks} ADD COLUMN secrets VARCHAR",
            "CREATE INDEX IF NOT EXISTS {tasks}_dead ON {tasks} (finished_at) WHERE state = 'dead'",
        ),
    ),
    Migration(
        4,
        "say from whom a task was rescued, and when it was due before that",
        (
            "ALTER TABLE {tasks} ADD COLUMN rescued_from VARCHAR",
            "ALTER TABLE {tasks} ADD COLUMN due_at BIGINT",
        ),
    ),
]

COLUMNS = {
    "sqlite": """
        SELECT found.name AS table_name, columns.name AS column_name
        FROM sqlite_master AS found, pragma_table_info(found.name) AS columns
        WHERE found.type IN ('table', 'view') AND found.name IN ({each:names})""",
    # Not the information schema, which hides what its reader may not touch.
    "postgresql": """
        SELECT relname AS table_name, attname AS column_name
        FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid
        WHERE relnamespace = CAST(current_schema() AS regnamespace)
            AND relkind IN ('r', 'p', 'v', 'm', 'f') AND relname IN ({each:names})
            AND attnum > 0 AND NOT attisdropped""",
}


async def version(connection: AsyncConnection, sql: Sql) -> int | None:
    """Return the number of the last step that was applied; None where no tables are ours."""
    return await _version(connection, sql, await _columns(connection, sql))


def newest() -> int:
    """Return the number of the last step that there is."""
    return MIGRATIONS[-1].number


async def migrate(connection: AsyncConnection, sql: Sql, earlier: Earlier) -> None:
    """Apply the steps that are missing, in the caller's transaction, which must hold the lock.

    Raises `SchemaRefused` where the tables are none of ours, or of a newer version.
    """
    columns = await _columns(connection, sql)
    found = await _version(connection, sql, columns)
    if found is None:
        await earlier.take_over(connection, sql, columns)
    elif found > newest():
        raise SchemaRefused(
            f"the tables {sql.prefix}... are of version {found}, and this code knows versions up to"
            f" {newest()}: deploy the newer code again"
        )
    missing = [step for step in MIGRATIONS if step.number > (found or 0)]
    for statement in [each for step in missing for each in step.statements]:
        await _apply(connection, sql, statement)
    if missing:
        await connection.execute(sql("UPDATE {version} SET number = :number"), {"number": newest()})


async def _apply(connection: AsyncConnection, sql: Sql, statement: str) -> None:
    if statement.startswith("CREATE INDEX") and connection.dialect.name == "postgresql":
        # On millions of rows that takes longer than a statement may.
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute(sql.text(statement), timeout=INDEX_SECONDS)
    else:
        await connection.execute(sql(statement))


async def _columns(connection: AsyncConnection, sql: Sql) -> Columns:
    names = {before + table for before in (sql.prefix, "") for table in TABLES}
    rows = await connection.execute(sql(COLUMNS[connection.dialect.name]), {"names": listed(names)})
    columns: dict[str, set[str]] = {}
    for row in rows:
        columns.setdefault(row.table_name, set()).add(row.column_name)
    return columns


async def _version(connection: AsyncConnection, sql: Sql, columns: Columns) -> int | None:
    name = sql.prefix + "version"
    if name not in columns:
        return None
    if columns[name] != {"number"}:
        raise foreign([name], sql.prefix)
    number: int = (await connection.execute(sql("SELECT number FROM {version}"))).scalar_one()
    return number
