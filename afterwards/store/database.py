"""The database behind one URL, SQLite or Postgres: connections and transactions."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from sqlalchemy import TextClause, exc
from sqlalchemy.engine import CursorResult, make_url
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, AsyncSession
from sqlalchemy.pool import NullPool

from afterwards.sealing import NO_SEAL, Seal
from afterwards.store import engines, lost_commit, migrations
from afterwards.store.commits import Commits
from afterwards.store.failures import (
    DatabaseUnavailable,
    OutcomeUnknown,
    WrongConnection,
    is_missing_table,
    translated,
)
from afterwards.store.given import Rows
from afterwards.store.postgres_writer import PostgresWriter
from afterwards.store.sql import DEFAULT_PREFIX, OWN, Sql
from afterwards.store.sqlite_file import SQLiteFile
from afterwards.store.sqlite_writer import SQLiteWriter, bound_log
from afterwards.store.steps import in_steps
from afterwards.store.takeover import Earlier

Connection = AsyncConnection

CLOSING_SECONDS = 1.0
# Postgres' advisory lock; any number, as long as only what makes tables takes it.
TABLES_LOCK = 0x7461736B

LOST = (
    "{0} was deleted or replaced while it was open, and is used no more: put it back (with its"
    " -wal and -shm), or restart the service to go on with what is there now"
)


async def connection_of(within: AsyncConnection | AsyncSession) -> AsyncConnection:
    """Return the connection that a caller's transaction is on."""
    return within if isinstance(within, AsyncConnection) else await within.connection()


class Database:
    """A pool of connections to the database at `url`, in any spelling that is common for one.

    The names of all tables begin with `prefix`; a statement is text for `afterwards.store.sql`.
    Secret arguments are written and read through the `seal`.
    """

    def __init__(self, url: str, prefix: str = DEFAULT_PREFIX, seal: Seal = NO_SEAL) -> None:
        self.seal = seal
        self._engine = engines.writing(engines.with_driver(make_url(url)))
        self.sql = Sql(self._engine.dialect.name, prefix)
        path = str(self._engine.url.database)
        is_file = self._engine.dialect.name == "sqlite"
        self._sqlite = SQLiteWriter(path, engines.STATEMENT_SECONDS) if is_file else None
        self._file = SQLiteFile(path, engines.STATEMENT_SECONDS) if is_file else None
        # SQLite's readers never wait for its writers: they have a pool and a patience of their own.
        self._reading, self._asking = (
            (engines.sqlite(self._engine.url, is_reading=True), self._engine)
            if is_file
            else (self._engine, engines.postgres(self._engine.url, poolclass=NullPool))
        )
        doubtful = set[lost_commit.Session]()
        writer = self._sqlite or PostgresWriter(self._asking, doubtful)
        self._commits = Commits(self.sql, writer, self._asking, doubtful)
        self._claimer = None if is_file else PostgresWriter(self._asking, doubtful)
        self._earlier = Earlier()

    def engines(self) -> set[AsyncEngine]:
        """Return the engines of `transaction` and `reading`."""
        return {self._engine, self._reading}

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Connection]:
        """Write in one transaction; raise `DatabaseUnavailable` where the database fails.

        Where the answer to its commit is lost, the database is asked for it, if `insert` has
        inserted something; where nobody can tell, that is `OutcomeUnknown`.
        """
        committing = None
        try:
            with self._translated():
                async with self._engine.begin() as connection:
                    yield connection
                    committing = connection.sync_connection
        except DatabaseUnavailable as error:
            # A file's commit that fails is rolled back.
            if committing is None or self._sqlite is not None:
                raise
            witness = committing.get_execution_options().get("witness")
            if witness is None:
                raise OutcomeUnknown(str(error)) from error
            if not await self.has_committed(*witness):
                raise

    @asynccontextmanager
    async def reading(self) -> AsyncIterator[Connection]:
        """Read in one transaction that never waits for a writer; raise `DatabaseUnavailable`."""
        with self._translated():
            async with self._reading.connect() as connection:
                yield connection

    async def all(self, statement: str, values: Mapping[str, Any] | None = None) -> Sequence[Any]:
        """Read all rows that the statement gives."""
        async with self.reading() as connection:
            return (await connection.execute(self.sql(statement), values)).all()

    async def returned(self, statement: str, rows: Rows) -> Sequence[Any]:
        """Execute the statement for its given rows, in one transaction; give what it returns."""
        if self._claimer is not None:
            with self._translated():
                return await self._claimer.write(self.sql.together({statement: rows}))
        async with self.transaction() as connection:
            return [
                row
                for made, values in self.sql.for_rows(statement, rows)
                for row in await connection.execute(made, values)
            ]

    async def change(self, statement: str, values: Mapping[str, Any] | None = None) -> int:
        """Execute the statement in a transaction of its own; return how many rows it changed."""
        async with self.transaction() as connection:
            result = await connection.execute(self.sql(statement), values)
            assert isinstance(result, CursorResult)
            return result.rowcount

    async def execute_within(
        self, within: AsyncConnection | AsyncSession, statement: str, values: Mapping[str, Any]
    ) -> AsyncConnection:
        """Execute the statement in the caller's transaction, on a connection of whatever engine.

        Raises `WrongConnection` where that is one to another database.
        """
        return await self._execute_within(within, self.sql(statement), values)

    async def _execute_within(
        self,
        within: AsyncConnection | AsyncSession,
        statement: TextClause,
        values: Mapping[str, Any],
    ) -> AsyncConnection:
        connection = await connection_of(within)
        if connection.dialect.name != self._engine.dialect.name:
            raise self._wrong(connection)
        try:
            await connection.execute(statement, values)
        except exc.DBAPIError as error:
            if connection.engine is self._engine or not is_missing_table(error):
                raise
            raise self._wrong(connection) from error
        return connection

    async def insert(
        self, within: AsyncConnection | AsyncSession, statement: str, rows: Rows
    ) -> None:
        """Insert the given rows as above, by a statement that cannot succeed twice."""
        for made, values in self.sql.for_rows(statement, rows):
            connection = await self._execute_within(within, made, values)
            await connection.execution_options(witness=(statement, rows))

    async def has_committed(self, insert: str, rows: Rows) -> bool:
        """Tell whether this insert of given rows was committed; if not, it never will be.

        Raises `OutcomeUnknown`.
        """
        return await self._commits.has_happened(insert, rows)

    async def write_together(self, batch: Mapping[str, Rows]) -> None:
        """Execute each statement for its given rows, all in one transaction; raise as above."""
        with self._translated():
            await self._commits.write(batch)

    def is_refusing(self, seconds: float) -> bool:
        """Tell whether the last `write_together` failed, no longer ago than so many seconds."""
        return self._commits.has_failed(seconds)

    async def write_timed(
        self, statement: str, values: Mapping[str, Any]
    ) -> tuple[Sequence[Any], float]:
        """Execute the statement in a transaction of its own; raise `DatabaseUnavailable`.

        Gives the first column of its rows, and for how many seconds it held other writers up.
        """
        if self._sqlite is not None:
            with self._translated():
                return await self._sqlite.write_timed(self.sql.text(statement), values)
        async with self.transaction() as connection:
            began = time.monotonic()
            rows = (await connection.execute(self.sql(statement), values)).scalars().all()
        return rows, time.monotonic() - began

    async def shrink(self) -> None:
        """Bound SQLite's log, and give its free pages back; Postgres does the like by itself."""
        if self._sqlite is not None:
            with self._translated():
                await asyncio.to_thread(bound_log, Path(str(self._engine.url.database)))
                await in_steps(self._sqlite.vacuum)

    async def make_tables(self) -> None:
        """Bring the tables, and SQLite's directory, to this version; several may do so at once.

        Raises `SchemaRefused` where that cannot be, and `DatabaseUnavailable` while a process of a
        version without a prefix lives: try again every few seconds.
        """
        await self._open_file()
        if await self.schema_version() != migrations.newest():
            async with self.migrating() as connection:
                await migrations.migrate(connection, self.sql, self._earlier)

    async def schema_version(self) -> int | None:
        """Return the version of the tables; None where there are none yet."""
        if self._file is not None and not self._file.is_there():
            return None
        async with self.reading() as connection:
            return await migrations.version(connection, self.sql)

    @asynccontextmanager
    async def migrating(self) -> AsyncIterator[Connection]:
        """Write in one transaction, while no other process makes tables here."""
        await self._open_file()
        async with self.transaction() as connection:
            if self._sqlite is None:
                lock = f"SELECT pg_advisory_xact_lock({TABLES_LOCK})"
                await connection.exec_driver_sql(lock, execution_options={OWN: True})
            yield connection

    async def close(self) -> None:
        """Close the pool, or leave it after a second: a dead server must not delay the end."""
        if self._sqlite is not None:
            self._sqlite.close()
        if self._file is not None:
            self._file.close()
        with suppress(TimeoutError):
            async with asyncio.timeout(CLOSING_SECONDS):
                await self._commits.close()
                if self._claimer is not None:
                    await self._claimer.close()
                await self._reading.dispose()
                await self._engine.dispose()

    async def _open_file(self) -> None:
        if self._file is not None:
            with self._translated():
                await asyncio.to_thread(self._file.open)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if self._file is not None and self._file.is_lost():
            raise DatabaseUnavailable(LOST.format(self._engine.url.database))
        with translated():
            yield

    def _wrong(self, connection: AsyncConnection) -> WrongConnection:
        asked, ours = connection.engine.url, self._engine.url
        return WrongConnection(
            f"within: {asked!r} has no table {self.sql.prefix}tasks, takes a connection or a"
            f" session of the tasks' own database, {ours!r}"
        )
