"""Postgres' group commits, each one statement on a raw connection, which commits by itself.

That is one round trip, and a third of the work that a transaction through SQLAlchemy takes. But
where its answer is lost, the statement itself may come to the server much later, for as long as the
session lives there: `lost_commit` ends that.
"""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncEngine

from afterwards.store.engines import PLANNING
from afterwards.store.failures import OutcomeUnknown, reason
from afterwards.store.lost_commit import Session

IDLE_SECONDS = 10.0  # after which what is between may have forgotten the connection, in silence
PING_SECONDS = 1.0
# One plan is right for ever, and need not be made anew.
PREPARE = """
    SELECT backend_start, set_config('plan_cache_mode', 'force_generic_plan', false)
    FROM pg_stat_activity WHERE pid = pg_backend_pid()
"""

Batch = Sequence[tuple[str, Sequence[Any]]]  # statements with their parameters


class PostgresWriter:
    """One connection to the database of the engine, which has no pool.

    What may still come in a session that was given up is noted among the `doubtful`.
    """

    def __init__(self, engine: AsyncEngine, doubtful: set[Session]) -> None:
        self._engine = engine
        self._doubtful = doubtful
        self._connection: Any = None  # a driver.HastyConnection
        self._session: Session | None = None  # none behind a pooler, where it would be another's
        self._used_at = 0.0
        self._writing = asyncio.Lock()  # several stores may share a database

    async def write(self, batch: Batch) -> Sequence[Any]:
        """Execute each statement with its parameters, in one transaction; give the last's rows.

        Raises `OutcomeUnknown` where something was sent and no answer came; where the driver
        raises, nothing was changed.
        """
        if not batch:
            return []
        async with self._writing:
            return await self._write(batch)

    async def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            await self._connection.close()

    async def _write(self, batch: Batch) -> Sequence[Any]:
        connection = await self._connected()
        try:
            if self._session and len(batch) == 1:
                [(statement, values)] = batch
                rows: Sequence[Any] = await connection.fetch(statement, *values)
            else:
                rows = await _in_a_transaction(connection, batch)
        except BaseException as error:
            is_answered = not (connection.is_closed() or isinstance(error, OSError))
            connection.terminate()
            if is_answered and isinstance(error, Exception):
                raise
            if self._session:
                self._doubtful.add(self._session)
            if isinstance(error, Exception):
                raise OutcomeUnknown(reason(error)) from error
            raise
        self._used_at = time.monotonic()
        return rows

    async def _connected(self) -> Any:
        if self._connection is None or not await self._is_alive():
            self._connection, self._session = await connect(self._engine)
        return self._connection

    async def _is_alive(self) -> bool:
        """Look, and ask only where nothing was heard for long; what is silent is closed."""
        if time.monotonic() - self._used_at > IDLE_SECONDS and not self._connection.is_closed():
            try:
                await self._connection.execute("SELECT", timeout=PING_SECONDS)
            except Exception:
                self._connection.terminate()
        return not self._connection.is_closed()


async def connect(engine: AsyncEngine) -> tuple[Any, Session | None]:
    """Connect as a writer does; give the connection and, without a pooler, its session."""
    try:
        pooled = await engine.raw_connection()
    except engine.dialect.loaded_dbapi.Error as error:  # the driver's own, but in disguise
        raise (error.__cause__ or error) from None
    connection: Any = pooled.driver_connection
    pooled.detach()
    if connection.is_pooled:
        return connection, None
    try:
        began_at = await connection.fetchval(PREPARE)
    except BaseException:
        connection.terminate()
        raise
    return connection, Session(connection.get_server_pid(), began_at)


async def _in_a_transaction(connection: Any, batch: Batch) -> Sequence[Any]:
    rows: Sequence[Any] = []
    settings = (f"; SET LOCAL {name} = {value}" for name, value in PLANNING.items())
    await connection.execute("BEGIN" + "".join(settings))
    for statement, values in batch:
        rows = await connection.fetch(statement, *values)
    await connection.execute("COMMIT")
    return rows
