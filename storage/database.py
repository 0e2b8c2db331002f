"""The database behind one URL, SQLite or Postgres: connections, transactions, and the tables made at start."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, closing, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import Connection as SyncConnection
from sqlalchemy import DateTime, Dialect, Executable, MetaData, TypeDecorator, event, exc, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.schema import CreateColumn

from storage.many_rows import Rows, parameters
from storage.sqlite_writer import SQLiteWriter

metadata = MetaData()

Connection = AsyncConnection

CONNECT_SECONDS = 3.0  # for a connection: a dead host must become a 503 while the client still waits
STATEMENT_SECONDS = 5.0  # for a statement, for SQLite's write lock, and for a free connection
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
    asyncpg.CannotConnectNowError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    OSError,
    TimeoutError,
)


# SQLSTATEs: no connection, no resources or a full disk, a person's or a shutdown's interference, a system's error, and
# a server that only reads. https://www.postgresql.org/docs/current/errcodes-appendix.html
AWAY_STATES = ("08", "53", "57", "58", "25006")


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
        self._sqlite = SQLiteWriter(str(self._engine.url.database), STATEMENT_SECONDS) if self._is_sqlite() else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Write in one transaction; raise `DatabaseUnavailable` where the database is the reason that it failed."""
        with _translated():
            async with self._engine.begin() as connection:
                yield connection

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """Read in one transaction that never waits for a writer; raise `DatabaseUnavailable` as above."""
        with _translated():
            async with self._engine.connect() as connection:
                yield await connection.execution_options(reading=True)

    async def write_together(self, batch: Mapping[Executable, Rows]) -> None:
        """Execute each statement for its `given` rows, all in one transaction; raise `DatabaseUnavailable` as above."""
        ready = {statement: parameters(rows) for statement, rows in batch.items()}
        if self._sqlite is not None:
            with _translated():
                await self._sqlite.write(ready)
            return
        async with self.transaction() as connection:
            for statement, given in ready.items():
                await connection.execute(statement, given)

    async def make_tables(self) -> None:
        """Make what is missing of tables, columns, indexes and SQLite's directory; several may do so at once."""
        if self._is_sqlite():
            with _translated():
                await asyncio.to_thread(_make_sqlite_file, Path(str(self._engine.url.database)))
        async with self.transaction() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": TABLES_LOCK})
            await connection.run_sync(metadata.create_all)
            await connection.run_sync(_add_missing_columns)

    async def close(self) -> None:
        """Close the pool, or leave it after a second: a dead server must not hold up the shutdown."""
        if self._sqlite is not None:
            self._sqlite.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._engine.dispose()

    def _is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (*UNAVAILABLE, exc.DBAPIError) as error:
        if isinstance(error, exc.DBAPIError) and not _is_the_databases_fault(error):
            raise
        reason = str(getattr(error, "orig", None) or error) or f"no answer in time ({type(error).__name__})"
        raise DatabaseUnavailable(reason) from error


def _is_the_databases_fault(error: exc.DBAPIError) -> bool:
    if isinstance(error, UNAVAILABLE) or error.connection_invalidated:
        return True
    state = getattr(error.orig, "sqlstate", None) or ""
    return isinstance(getattr(error.orig, "__cause__", None), UNAVAILABLE) or state.startswith(AWAY_STATES)


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
    return create_async_engine(
        url,
        pool_pre_ping=True,  # a platform may restart the server or change its password under us
        pool_timeout=STATEMENT_SECONDS,
        pool_size=CONNECTIONS,
        max_overflow=0,  # to open and close a connection costs more than to wait for one
        connect_args={"timeout": CONNECT_SECONDS, "command_timeout": STATEMENT_SECONDS},
    )


def _sqlite(url: URL) -> AsyncEngine:
    engine = create_async_engine(url, pool_timeout=STATEMENT_SECONDS, connect_args={"timeout": STATEMENT_SECONDS})
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _add_missing_columns(connection: SyncConnection) -> None:
    """Bring the tables of an earlier version up to date: add the columns and indexes that they lack."""
    inspector = inspect(connection)
    for table in metadata.sorted_tables:
        known = {column["name"] for column in inspector.get_columns(table.name)}
        for column in [column for column in table.columns if column.name not in known]:
            definition = CreateColumn(column).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))
        indexed = {index["name"] for index in inspector.get_indexes(table.name)}
        for index in [index for index in table.indexes if index.name not in indexed]:
            index.create(connection)


def _make_sqlite_file(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    deadline = time.monotonic() + STATEMENT_SECONDS
    with closing(sqlite3.connect(path)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode=WAL").close()  # it stays in the file
                return
            except sqlite3.OperationalError:  # another process switches too: SQLite does not wait for that by itself
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.01)


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = None  # the driver would begin by itself, and too late to take the write lock
    for pragma in ("synchronous=FULL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: SyncConnection) -> None:
    # A transaction that turns from reading to writing half-way fails at once where another writes; so take the write
    # lock first, and wait for it.
    reading = connection.get_execution_options().get("reading", False)
    connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")
