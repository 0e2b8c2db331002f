"""A commit whose answer was lost: whether it happened is asked anew, in bounded time.

The insert is tried again and rolled back. On Postgres that waits for a transaction that has the
same id and is still open, so that the answer is final: what can be inserted now will never come.
Where it is not a COMMIT that was lost, but a whole statement, the session is ended first in which
it would come.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, NamedTuple

from sqlalchemy import TextClause, text
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

ASK_SECONDS = 2.5  # a client waits for the answer
PATIENCE = 0.2  # seconds in which a transaction that is open may end by itself

# Its COMMIT may be held up in the network for hours, and come in the end. Only one that has nothing
# to do is ended.
END_WHAT_IS_WAITED_FOR = text("""
    SELECT pg_terminate_backend(holder.pid)
    FROM pg_locks AS waiting
    JOIN pg_locks AS holder ON holder.transactionid = waiting.transactionid AND holder.granted
    JOIN pg_stat_activity AS session
        ON session.pid = holder.pid AND session.state = 'idle in transaction'
    WHERE waiting.pid = :waiting AND NOT waiting.granted
""")

END = text("""
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE pid = :pid AND backend_start = :began_at
""")


class Session(NamedTuple):
    """A session of a Postgres server, none of which is ever like another."""

    pid: int
    began_at: datetime


async def has_committed(
    engine: AsyncEngine, insert: TextClause, values: Mapping[str, Any], doubtful: set[Session]
) -> bool:
    """Tell whether the insert, which cannot succeed twice, was committed; it is over then.

    It may have been sent in one of the doubtful sessions: they are ended, and forgotten. Raises
    `TimeoutError` or what a driver raises where that cannot be told. The engine's connections are
    to be new.
    """
    async with (
        asyncio.timeout(ASK_SECONDS),
        engine.connect() as connection,
        _ending_what_it_waits_for(connection),
    ):
        for session in [*doubtful]:
            await _end(connection, session)
            doubtful.discard(session)
        try:
            await connection.execute(insert, values)
        except IntegrityError:
            return True
        return False


async def _end(connection: AsyncConnection, session: Session) -> None:
    await asyncio.sleep(PATIENCE)
    while (await connection.execute(END, session._asdict())).first():
        await connection.rollback()  # a transaction sees the same sessions all the while
        await asyncio.sleep(PATIENCE / 10)


@asynccontextmanager
async def _ending_what_it_waits_for(connection: AsyncConnection) -> AsyncIterator[None]:
    if connection.dialect.name != "postgresql":
        yield
        return
    pid = (await connection.execute(text("SELECT pg_backend_pid()"))).scalar_one()
    ending = asyncio.create_task(_end_what_is_waited_for(connection.engine, pid))
    try:
        yield
    finally:
        ending.cancel()
        await asyncio.gather(ending, return_exceptions=True)


async def _end_what_is_waited_for(engine: AsyncEngine, pid: int) -> None:
    await asyncio.sleep(PATIENCE)
    async with engine.connect() as connection:
        while True:
            await connection.execute(END_WHAT_IS_WAITED_FOR, {"waiting": pid})
            await connection.rollback()  # a transaction sees the same sessions all the while
            await asyncio.sleep(PATIENCE)
