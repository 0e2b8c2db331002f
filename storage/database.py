"""The database behind one URL, SQLite or Postgres: connections, transactions, and the tables made at start."""

import asyncio
import math
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import Connection as SyncConnection
from sqlalchemy import DateTime, Dialect, Executable, Index, MetaData, TypeDecorator, event, exc, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateColumn, CreateIndex

from storage import pooler
from storage.many_rows import Rows, parameters
from storage.sqlite_file import SQLiteFile
from storage.sqlite_writer import SQLiteWriter, bound_log, prepare
from storage.steps import in_steps

metadata = MetaData()

Connection = AsyncConnection

CONNECT_SECONDS = 3.0  # for a connection: a dead host must become a 503 while the client still waits
STATEMENT_SECONDS = 5.0  # for a statement, for SQLite's write lock, and for a free connection
INDEX_SECONDS = 600.0  # for an index that an earlier version's table lacks
CLOSING_SECONDS = 1.0
CONNECTIONS = 8  # to Postgres, of a process; small plans allow 20 for all
TABLES_LOCK = 0x7461736B  # Postgres' advisory lock; any number, as long as only the making of tables takes it

# What a driver raises when the database is away, full, locked or read-only, as against wrong SQL.
UNAVAILABLE = (
    exc.OperationalError,
    sqlite3.OperationalError,
    exc.InterfaceError,
    exc.TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    OSError,
    TimeoutError,
)


# SQLSTATEs: no connection, rolled back for another's sake (a deadlock), no resources or a full disk, a person's or a
# shutdown's interference, a system's error, and a server that only reads; each may go well the next time.
# https://www.postgresql.org/docs/current/errcodes-appendix.html
# 42P01: the tables are not there yet, as while a backup is restored.
AWAY_STATES = ("08", "40", "53", "57", "58", "25006", "42P01")


NO_DATABASE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
LOST = (
    "{0} was deleted or replaced while it was open, and is used no more: put it back (with its -wal and -shm), "
    "or restart the service to go on with what is there now"
)


class DatabaseUnavailable(Exception):
    """The database cannot be reached or cannot write; nothing was changed, and the same may be tried again."""


class Instant(TypeDecorator[datetime]):
    """A moment in UTC with microseconds; SQLite keeps no zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        return value.replace(tzinfo=UTC) if value is not None and value.tzinfo is None else value


class Database:
    """A pool of connections to the database at `url`, in any spelling that Heroku, Render or SQLAlchemy use."""

    def __init__(self, url: str) -> None:
        self._engine = _engine(_with_driver(make_url(url)))
        path = str(self._engine.url.database)
        self._sqlite = SQLiteWriter(path, STATEMENT_SECONDS) if self._is_sqlite() else None
        self._file = SQLiteFile(path, STATEMENT_SECONDS) if self._is_sqlite() else None
        self._refused_at = -math.inf  # by the monotonic clock: when a commit failed, and none has succeeded since

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Write in one transaction; raise `DatabaseUnavailable` where the database is the reason that it failed."""
        with self._translated():
            async with self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """Read in one transaction that never waits for a writer; raise `DatabaseUnavailable` as above."""
        with self._translated():
            async with self._engine.connect() as connection:
                yield await connection.execution_options(reading=True)

    async def write_together(self, batch: Mapping[Executable, Rows]) -> None:
        """Execute each statement for its `given` rows, all in one transaction; raise `DatabaseUnavailable` as above."""
        ready = {statement: parameters(rows) for statement, rows in batch.items()}
        try:
            await self._write(ready)
        except DatabaseUnavailable:
            self._refused_at = time.monotonic()
            raise
        self._refused_at = -math.inf

    def is_refusing(self, seconds: float) -> bool:
        """Tell whether the last `write_together` found the database unavailable, no longer ago than so many seconds."""
        return time.monotonic() - self._refused_at < seconds

    async def write_timed(self, statement: Executable, values: Mapping[str, Any]) -> tuple[Sequence[Any], float]:
        """Execute the statement in a transaction of its own; raise `DatabaseUnavailable` as above.

        Gives the first column of its rows, and for how many seconds it held other writers up.
        """
        if self._sqlite is not None:
            with self._translated():
                return await self._sqlite.write_timed(statement, values)
        async with self.transaction() as connection:
            began = time.monotonic()
            rows = (await connection.execute(statement, values)).scalars().all()
        return rows, time.monotonic() - began

    async def shrink(self) -> None:
        """Bound SQLite's write-ahead log, and give its free pages back; Postgres does the like by itself."""
        if self._sqlite is not None:
            with self._translated():
                await asyncio.to_thread(bound_log, Path(str(self._engine.url.database)))
                await in_steps(self._sqlite.vacuum)

    async def make_tables(self) -> None:
        """Make the tables and columns that are missing, and SQLite's directory; several processes may do so at once."""
        if self._file is not None:
            with self._translated():
                await asyncio.to_thread(self._file.open)
        async with self.transaction() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": TABLES_LOCK})
            await connection.run_sync(metadata.create_all)
            await connection.run_sync(_add_missing_columns)
            for index in await connection.run_sync(_missing_indexes):
                await _make_index(connection, index)

    async def close(self) -> None:
        """Close the pool, or leave it after a second: a dead server must not hold up the shutdown."""
        if self._sqlite is not None:
            self._sqlite.close()
        if self._file is not None:
            self._file.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._engine.dispose()

    async def _write(self, batch: Mapping[Executable, Mapping[str, Any]]) -> None:
        if self._sqlite is not None:
            with self._translated():
                await self._sqlite.write(batch)
            return
        async with self.transaction() as connection:
            for statement, given in batch.items():
                await connection.execute(statement, given)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if self._file is not None and self._file.is_lost():
            raise DatabaseUnavailable(LOST.format(self._engine.url.database))
        try:
            yield
        except (*UNAVAILABLE, exc.DBAPIError, sqlite3.DatabaseError) as error:
            if not _is_the_databases_fault(error):
                raise
            reason = str(getattr(error, "orig", None) or error) or f"no answer in time ({type(error).__name__})"
            raise DatabaseUnavailable(reason) from error

    def _is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"


def _is_the_databases_fault(error: BaseException) -> bool:
    if isinstance(error, UNAVAILABLE) or getattr(error, "connection_invalidated", False):
        return True
    origin = getattr(error, "orig", error)
    if getattr(origin, "sqlite_errorcode", 0) in NO_DATABASE:
        return True
    state = getattr(origin, "sqlstate", None) or ""
    return isinstance(getattr(origin, "__cause__", None), UNAVAILABLE) or state.startswith(AWAY_STATES)


def _with_driver(url: URL) -> URL:
    if url.get_backend_name() == "sqlite":
        return url.set(drivername="sqlite+aiosqlite")
    # Heroku writes postgres://, and libpq's sslmode is asyncpg's ssl.
    url = url.set(drivername="postgresql+asyncpg")
    sslmode = url.query.get("sslmode")
    return url.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode}) if sslmode else url


def _engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() == "sqlite":
        return _sqlite(url)
    engine = create_async_engine(
        url,
        pool_pre_ping=True,  # a platform may restart the server or change its password under us
        pool_timeout=STATEMENT_SECONDS,
        pool_size=CONNECTIONS,
        max_overflow=0,  # to open and close a connection costs more than to wait for one
        connect_args={"timeout": CONNECT_SECONDS, "command_timeout": STATEMENT_SECONDS},
    )
    event.listen(engine.sync_engine, "do_connect", pooler.connect)
    return engine


def _sqlite(url: URL) -> AsyncEngine:
    engine = create_async_engine(url, pool_timeout=STATEMENT_SECONDS, connect_args={"timeout": STATEMENT_SECONDS})
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _add_missing_columns(connection: SyncConnection) -> None:
    """Bring the tables of an earlier version up to date: add the columns that they lack.

    A column whose `info` has a "fill" is filled by it, for the rows that there are.
    """
    for table in metadata.sorted_tables:
        known = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in [column for column in table.columns if column.name not in known]:
            definition = CreateColumn(column).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))
            if fill := column.info.get("fill"):
                fill(connection)


def _missing_indexes(connection: SyncConnection) -> list[Index]:
    # SQLAlchemy's inspection asks so much that it doubles the time of a start on Postgres.
    listing = {
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'index'",
        "postgresql": "SELECT indexname FROM pg_indexes WHERE schemaname = current_schema()",
    }
    known = set(connection.execute(text(listing[connection.dialect.name])).scalars())
    return [index for table in metadata.sorted_tables for index in table.indexes if index.name not in known]


async def _make_index(connection: Connection, index: Index) -> None:
    if connection.dialect.name == "postgresql":  # millions of rows take longer than a statement may
        driver: Any = (await connection.get_raw_connection()).driver_connection
        await driver.execute(str(CreateIndex(index).compile(dialect=connection.dialect)), timeout=INDEX_SECONDS)
    else:
        await connection.execute(CreateIndex(index))


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # the driver would begin by itself, and too late to take the write lock
    prepare(connection)


def _begin_sqlite(connection: SyncConnection) -> None:
    # A transaction that turns from reading to writing half-way fails at once where another writes; so take the write
    # lock first, and wait for it.
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
