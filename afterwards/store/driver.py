"""What asyncpg is taught: to leave a silent server soon, and to notice a pooler such as PgBouncer.

In a pooler's transaction mode each transaction may get another server connection, where what was
prepared before is not, or is something else.
"""

from typing import Any

import asyncpg
from sqlalchemy import Dialect, ExceptionContext
from sqlalchemy.exc import InvalidatePoolError

from afterwards.store.engines import PLANNING

CLOSING_SECONDS = 0.5  # SQLAlchemy would give it two, while a client waits for its 503
# Both caches off: then statements are unnamed, and each is sent together with its parameters.
UNPREPARED = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}


class NamedRecord(asyncpg.Record):  # type: ignore[misc]  # asyncpg has no types
    """A row whose columns are attributes, as those of SQLAlchemy's rows are."""

    def __getattr__(self, name: str) -> Any:
        return self[name]


class HastyConnection(asyncpg.Connection):  # type: ignore[misc]  # asyncpg has no types
    """Closes in good order if the server answers at once, and as it is if not."""

    is_pooled = False

    async def close(self, *, timeout: float | None = None) -> None:
        """Close; raise TimeoutError where the server is silent, and be closed all the same."""
        await super().close(timeout=min(timeout or CLOSING_SECONDS, CLOSING_SECONDS))


def connect(dialect: Dialect, record: object, args: Any, parameters: dict[str, Any]) -> Any:
    """Connect as SQLAlchemy does, and set up; without prepared statements behind a pooler."""
    connection: Any = dialect.connect(*args, **parameters)
    try:
        is_alone = connection.run_async(_set_up)
    except BaseException:
        connection.terminate()
        raise
    if is_alone:
        return connection
    connection.close()
    unprepared: Any = dialect.connect(*args, **parameters | UNPREPARED)
    unprepared.driver_connection.is_pooled = True
    return unprepared


def leave_silent(context: ExceptionContext) -> None:
    """Give up, with a connection that says nothing, all that are as old: SQLAlchemy keeps them."""
    if isinstance(context.original_exception, TimeoutError) and context.connection is not None:
        driver: Any = context.connection.connection.driver_connection
        driver.terminate()
        context.invalidate_pool_on_disconnect = True


def leave_closed(connection: Any, record: object, proxy: object) -> None:
    """Replace a connection that is known to be closed, and all that are as old; ask nobody."""
    if connection.driver_connection.is_closed():
        raise InvalidatePoolError


async def _set_up(connection: asyncpg.Connection) -> bool:
    # A pooler makes up the process id that it tells a client, for one that may be served by many.
    # The text protocol prepares nothing, and answers how many rows there are. What is set for a
    # session would be set for others as well.
    pid = connection.get_server_pid()
    settings = ", ".join(
        f"set_config('{each}', '{value}', false)" for each, value in PLANNING.items()
    )
    said = await connection.execute(f"SELECT {settings} WHERE pg_backend_pid() = {pid}")
    return bool(said == "SELECT 1")
