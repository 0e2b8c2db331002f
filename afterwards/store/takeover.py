"""The tables of versions without a prefix become ours, when none of their processes lives."""

import time
from collections.abc import Collection, Mapping

from sqlalchemy.ext.asyncio import AsyncConnection

from afterwards.store.beats import Seen, seen_now
from afterwards.store.failures import DatabaseUnavailable, SchemaRefused
from afterwards.store.sql import DEFAULT_PREFIX, Sql

SILENT_SECONDS = 10.0  # a process whose count of beats stands still for so long is dead
BLIND_SECONDS = 5.0  # who has not looked for so long has heard no silence

Columns = Mapping[str, Collection[str]]  # of each table that there is

# Tables are taken over only if they have exactly these columns; the first versions had fewer.
OLD_TASKS = {
    *("id", "name", "arguments", "in_thread", "carrier", "state", "attempt", "max_attempts"),
    *("crashes", "worker", "created_at", "run_at", "started_at", "finished_at", "result"),
    *("error_kind", "error_message"),
}
SHAPES: dict[str, list[set[str]]] = {
    "tasks": [
        OLD_TASKS | {"follows", "publish_at"},
        OLD_TASKS | {"follows", "hand_off_at"},
        OLD_TASKS | {"follows"},
        OLD_TASKS,
    ],
    "workers": [{"id", "beats"}],
    "answers": [{"key", "fingerprint", "created_at", "status", "headers", "body"}],
}
# What Postgres' indexes were called, and are; `tasks_waiting` has no heir.
INDEXES = {
    "tasks_to_hand_off": "tasks_to_publish",
    "ix_answers_created_at": "answers_created_at",
    **{name: name for name in ("tasks_next", "tasks_following", "tasks_running", "tasks_pruned")},
    **{name: name for name in ("tasks_pkey", "workers_pkey", "answers_pkey")},
}


def foreign(tables: Collection[str], prefix: str) -> SchemaRefused:
    """Make the error that says that these tables are somebody else's."""
    return SchemaRefused(
        f"there is a table {' and one '.join(sorted(tables))} that is none of ours, and it is left"
        f" alone: choose another table_prefix than {prefix!r}"
    )


class Earlier:
    """What is known of earlier versions' processes, from one attempt to take over to the next."""

    def __init__(self) -> None:
        self._seen: Seen = {}
        self._looked_at = 0.0

    async def take_over(self, connection: AsyncConnection, sql: Sql, columns: Columns) -> None:
        """Rename what earlier versions have left to the names of now, with all its rows.

        Raises `DatabaseUnavailable` while one of their processes may live, `SchemaRefused` where a
        table that bears a name of ours is another's; then nothing is changed.
        """
        if taken := [sql.prefix + table for table in SHAPES if sql.prefix + table in columns]:
            if not _is_ours(sql.prefix, columns):
                raise foreign(taken, sql.prefix)
            old = sql.prefix
        elif sql.prefix == DEFAULT_PREFIX and _is_ours("", columns):
            old = ""
        else:  # a prefix that somebody chose has nothing to do with what lies beside it
            return
        await self._refuse_the_living(connection, old)
        for statement in _statements(connection.dialect.name, old, sql.prefix, columns):
            await connection.execute(sql(statement))

    async def _refuse_the_living(self, connection: AsyncConnection, old: str) -> None:
        await self._look(connection, old)
        if connection.dialect.name == "postgresql":
            # So that none comes while the tables are renamed; SQLite's write lock is ours already.
            await connection.exec_driver_sql(f"LOCK TABLE {old}workers IN ACCESS EXCLUSIVE MODE")
            await self._look(connection, old)

    async def _look(self, connection: AsyncConnection, old: str) -> None:
        now = time.monotonic()
        rows = (await connection.exec_driver_sql(f"SELECT id, beats FROM {old}workers")).all()
        if now - self._looked_at > BLIND_SECONDS:
            self._seen = {}
        self._looked_at = now
        self._seen = seen_now(self._seen, {row.id: row.beats for row in rows}, now)
        living = [id for id, (_, since) in self._seen.items() if now - since <= SILENT_SECONDS]
        if living:
            raise DatabaseUnavailable(
                f"an earlier version's process {', '.join(sorted(living))} still runs on this"
                f" database, or ran until {SILENT_SECONDS:g} s ago, and must be stopped first;"
                " nothing was changed"
            )


def _is_ours(prefix: str, columns: Columns) -> bool:
    found = [table for table in SHAPES if prefix + table in columns]
    return {"tasks", "workers"} <= {*found} and all(
        set(columns[prefix + table]) in SHAPES[table] for table in found
    )


def _statements(dialect: str, old: str, new: str, columns: Columns) -> list[str]:
    tables = [table for table in SHAPES if old + table in columns]
    has = columns[f"{old}tasks"]
    return [
        f"DELETE FROM {old}workers",  # the dead: what they ran is rescued
        *(f"ALTER TABLE {old}{each} RENAME TO {new}{each}" for each in tables if old != new),
        *(["ALTER TABLE {tasks} ADD COLUMN follows VARCHAR"] if "follows" not in has else []),
        *(
            ["ALTER TABLE {tasks} RENAME COLUMN hand_off_at TO publish_at"]
            if "hand_off_at" in has
            else ["ALTER TABLE {tasks} ADD COLUMN publish_at BIGINT NOT NULL DEFAULT 0"]
            if "publish_at" not in has
            else []
        ),
        f"DROP INDEX IF EXISTS {old}tasks_waiting",
        *(
            f"ALTER INDEX IF EXISTS {old}{was} RENAME TO {new}{is_now}"
            if dialect == "postgresql"
            else f"DROP INDEX IF EXISTS {old}{was}"  # SQLite renames none; they are made anew
            for was, is_now in INDEXES.items()
            if old + was != new + is_now
        ),
    ]
