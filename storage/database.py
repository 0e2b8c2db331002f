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
from sqlalchemy.pool import NullPool
from sqlalchemy.schema import CreateColumn

from storage import lost_commit
from storage.hasty import HastyConnection
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


class OutcomeUnknown(DatabaseUnavailable):
    """The database was lost while it committed, and cannot be asked: whether anything was changed is not known."""


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
        self._asking = self._engine if self._is_sqlite() else _postgres(self._engine.url, poolclass=NullPool)
        self._sqlite = SQLiteWriter(str(self._engine.url.database), STATEMENT_SECONDS) if self._is_sqlite() else None

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Write in one transaction; raise `DatabaseUnavailable` where the database is the reason that it failed.

        Where the answer to its commit is lost, the database is asked for it, if `execute_for` has inserted something;
        where nobody can tell, that is `OutcomeUnknown`.
        """
        committing = None
        try:
            with _translated():
                async with self._engine.begin() as connection:
                    yield connection
                    committing = connection.sync_connection
        except DatabaseUnavailable as error:
            if committing is None or self._is_sqlite():  # a file's commit that fails is rolled back
                raise
            witness = committing.get_execution_options().get("witness")
            if witness is None:
                raise OutcomeUnknown(str(error)) from error
            if not await self.has_committed(*witness):
                raise

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """Read in one transaction that never waits for a writer; raise `DatabaseUnavailable` as above."""
        with _translated():
            async with self._engine.connect() as connection:
                yield await connection.execution_options(reading=True)

    async def execute_for(self, connection: Connection, statement: Executable, rows: Rows) -> None:
        """Execute the statement for the `given` rows; an insert must be one that cannot succeed twice."""
        await connection.execute(statement, parameters(rows))
        if statement.is_insert:
            await connection.execution_options(witness=(statement, rows))

    async def has_committed(self, insert: Executable, rows: Rows) -> bool:
        """Tell whether this insert of `given` rows was committed; if not, it never will be. Raises `OutcomeUnknown`."""
        try:
            with _translated():
                return await lost_commit.has_committed(self._asking, insert, parameters(rows))
        except DatabaseUnavailable as error:
            raise OutcomeUnknown(f"nobody can tell what became of a commit: {error}") from error

    async def write_together(self, batch: Mapping[Executable, Rows]) -> None:
        """Execute each statement for its `given` rows, all in one transaction; raise `DatabaseUnavailable` as above."""
        if self._sqlite is not None:
            ready = {statement: parameters(rows) for statement, rows in batch.items()}
            with _translated():
                await self._sqlite.write(ready)
            return
        async with self.transaction() as connection:
            for statement, rows in batch.items():
                await self.execute_for(connection, statement, rows)

    async def make_tables(self) -> None:
        """Make the tables and columns that are missing, and SQLite's directory; several processes may do so at once."""
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
    return _postgres(
        url,
        pool_pre_ping=True,  # a platform may restart the server or change its password under us
        pool_timeout=STATEMENT_SECONDS,
        pool_size=CONNECTIONS,
        max_overflow=0,  # to open and close a connection costs more than to wait for one
    )


def _postgres(url: URL, **pool: Any) -> AsyncEngine:
    waits = {"timeout": CONNECT_SECONDS, "command_timeout": STATEMENT_SECONDS}
    return create_async_engine(url, **pool, connect_args=waits | {"connection_class": HastyConnection})


def _sqlite(url: URL) -> AsyncEngine:
    engine = create_async_engine(url, pool_timeout=STATEMENT_SECONDS, connect_args={"timeout": STATEMENT_SECONDS})
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_sqlite)
    return engine


def _add_missing_columns(connection: SyncConnection) -> None:
    """Bring the tables of an earlier version up to date: add the columns that they lack, with their indexes."""
    for table in metadata.sorted_tables:
        known = {column["name"] for column in inspect(connection).get_columns(table.name)}
        for column in [column for column in table.columns if column.name not in known]:
            definition = CreateColumn(column).compile(dialect=connection.dialect)
            connection.execute(text(f"ALTER TABLE {table.name} ADD COLUMN {definition}"))
            for index in [index for index in table.indexes if column.name in index.columns]:
                index.create(connection, checkfirst=True)


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
