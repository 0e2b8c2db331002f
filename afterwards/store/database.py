"""The database behind one URL, SQLite or Postgres: connections and transactions."""

import asyncio
import math
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import Connection as SyncConnection
from sqlalchemy import Executable, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import NullPool

from afterwards.store import lost_commit, pooler
from afterwards.store import migrations as schema
from afterwards.store.failures import DatabaseUnavailable, OutcomeUnknown, translated
from afterwards.store.hasty import HastyConnection
from afterwards.store.many_rows import Rows, parameters
from afterwards.store.sqlite_file import SQLiteFile
from afterwards.store.sqlite_writer import POLL_SECONDS, SQLiteWriter, bound_log, lock, prepare
from afterwards.store.steps import in_steps

Connection = AsyncConnection

CONNECT_SECONDS = (
    3.0  # for a connection: a dead host must become a 503 while the client still waits
)
STATEMENT_SECONDS = 5.0  # for a statement, for SQLite's write lock, and for a free connection
CLOSING_SECONDS = 1.0
CONNECTIONS = 8  # to Postgres, of a process; small plans allow 20 for all

LOST = (
    "{0} was deleted or replaced while it was open, and is used no more: put it back (with its -wal and -shm), "
    "or restart the service to go on with what is there now"
)


class Database:
    """A pool of connections to the database at `url`, in any spelling that Heroku, Render or SQLAlchemy use."""

    def __init__(self, url: str) -> None:
        self._engine = _engine(_with_driver(make_url(url)))
        # SQLite's readers never wait for its writers: they have a pool, and a patience, of their
        # own.
        self._reading = (
            _sqlite(self._engine.url, is_reading=True) if self._is_sqlite() else self._engine
        )
        self._asking = (
            self._engine if self._is_sqlite() else _postgres(self._engine.url, poolclass=NullPool)
        )
        path = str(self._engine.url.database)
        self._sqlite = SQLiteWriter(path, STATEMENT_SECONDS) if self._is_sqlite() else None
        self._file = SQLiteFile(path, STATEMENT_SECONDS) if self._is_sqlite() else None
        self._refused_at = (
            -math.inf
        )  # by the monotonic clock: when a commit failed, and none has succeeded since

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Write in one transaction; raise `DatabaseUnavailable` where the database is the reason that it failed.

        Where the answer to its commit is lost, the database is asked for it, if `execute_for` has
        inserted something; where nobody can tell, that is `OutcomeUnknown`.
        """
        committing = None
        try:
            with self._translated():
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
        with self._translated():
            async with self._reading.connect() as connection:
                yield connection

    async def execute_for(self, connection: Connection, statement: Executable, rows: Rows) -> None:
        """Execute the statement for the `given` rows; an insert must be one that cannot succeed twice."""
        await connection.execute(statement, parameters(rows))
        if statement.is_insert:
            await connection.execution_options(witness=(statement, rows))

    async def has_committed(self, insert: Executable, rows: Rows) -> bool:
        """Tell whether this insert of `given` rows was committed; if not, it never will be. Raises `OutcomeUnknown`."""
        try:
            with self._translated():
                return await lost_commit.has_committed(self._asking, insert, parameters(rows))
        except DatabaseUnavailable as error:
            raise OutcomeUnknown(f"nobody can tell what became of a commit: {error}") from error

    async def write_together(self, batch: Mapping[Executable, Rows]) -> None:
        """Execute each statement for its `given` rows, all in one transaction; raise `DatabaseUnavailable` as above."""
        try:
            await self._write(batch)
        except DatabaseUnavailable:
            self._refused_at = time.monotonic()
            raise
        self._refused_at = -math.inf

    def is_refusing(self, seconds: float) -> bool:
        """Tell whether the last `write_together` found the database unavailable, no longer ago than so many seconds."""
        return time.monotonic() - self._refused_at < seconds

    async def write_timed(
        self, statement: Executable, values: Mapping[str, Any]
    ) -> tuple[Sequence[Any], float]:
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
        """Make what is missing of tables, columns, indexes and SQLite's directory; several may do so at once."""
        if self._file is not None:
            with self._translated():
                await asyncio.to_thread(self._file.open)
        async with self.transaction() as connection:
            await schema.make(connection)

    async def close(self) -> None:
        """Close the pool, or leave it after a second: a dead server must not hold up the shutdown."""
        if self._sqlite is not None:
            self._sqlite.close()
        if self._file is not None:
            self._file.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._reading.dispose()
                await self._engine.dispose()

    async def _write(self, batch: Mapping[Executable, Rows]) -> None:
        if self._sqlite is not None:
            ready = {statement: parameters(rows) for statement, rows in batch.items()}
            with self._translated():
                await self._sqlite.write(ready)
            return
        async with self.transaction() as connection:
            for statement, rows in batch.items():
                await self.execute_for(connection, statement, rows)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if self._file is not None and self._file.is_lost():
            raise DatabaseUnavailable(LOST.format(self._engine.url.database))
        with translated():
            yield

    def _is_sqlite(self) -> bool:
        return self._engine.dialect.name == "sqlite"


def _with_driver(url: URL) -> URL:
    if url.get_backend_name() == "sqlite":
        return url.set(drivername="sqlite+aiosqlite")
    # Heroku writes postgres://, and libpq's sslmode is asyncpg's ssl.
    url = url.set(drivername="postgresql+asyncpg")
    sslmode = url.query.get("sslmode")
    return (
        url.difference_update_query(["sslmode"]).update_query_dict({"ssl": sslmode})
        if sslmode
        else url
    )


def _engine(url: URL) -> AsyncEngine:
    if url.get_backend_name() == "sqlite":
        return _sqlite(url, is_reading=False)
    return _postgres(
        url,
        pool_pre_ping=True,  # a platform may restart the server or change its password under us
        pool_timeout=STATEMENT_SECONDS,
        pool_size=CONNECTIONS,
        max_overflow=0,  # to open and close a connection costs more than to wait for one
    )


def _postgres(url: URL, **pool: Any) -> AsyncEngine:
    waits = {"timeout": CONNECT_SECONDS, "command_timeout": STATEMENT_SECONDS}
    engine = create_async_engine(
        url, **pool, connect_args=waits | {"connection_class": HastyConnection}
    )
    event.listen(engine.sync_engine, "do_connect", pooler.connect)
    return engine


def _sqlite(url: URL, *, is_reading: bool) -> AsyncEngine:
    timeout = STATEMENT_SECONDS if is_reading else POLL_SECONDS
    engine = create_async_engine(
        url, pool_timeout=STATEMENT_SECONDS, connect_args={"timeout": timeout}
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_reading if is_reading else _begin_writing)
    return engine


def _prepare_sqlite(connection: Any, record: object) -> None:
    connection.isolation_level = (
        None  # the driver would begin by itself, and too late to take the write lock
    )
    prepare(connection)


def _begin_reading(connection: SyncConnection) -> None:
    connection.exec_driver_sql("BEGIN")


def _begin_writing(connection: SyncConnection) -> None:
    # A transaction that turns from reading to writing half-way fails at once where another writes;
    # so take the write lock first, and wait for it.
    adapted: Any = connection.connection.dbapi_connection
    adapted.run_async(lambda driver: lock(driver, STATEMENT_SECONDS))
