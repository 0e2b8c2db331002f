"""Notices a pooler such as PgBouncer, and does without prepared statements there.

In transaction mode each transaction may get another server connection, where what was prepared
before is not, or is something else.
"""

from typing import Any

import asyncpg
from sqlalchemy import Dialect

# Both caches off: then statements are unnamed, and each is sent together with its parameters.
UNPREPARED = {"statement_cache_size": 0, "prepared_statement_cache_size": 0}


def connect(dialect: Dialect, record: object, args: Any, parameters: dict[str, Any]) -> Any:
    """Connect as SQLAlchemy does, but without prepared statements behind a pooler."""
    connection: Any = dialect.connect(*args, **parameters)
    try:
        is_pooled = connection.run_async(_is_pooled)
    except BaseException:
        connection.terminate()
        raise
    if not is_pooled:
        return connection
    connection.close()
    return dialect.connect(*args, **parameters | UNPREPARED)


async def _is_pooled(connection: asyncpg.Connection) -> bool:
    # A pooler makes up the process id that it tells a client, for one that may be served by many.
    # The text protocol prepares nothing, and answers how many rows there are.
    pid = connection.get_server_pid()
    return bool(await connection.execute(f"SELECT WHERE pg_backend_pid() = {pid}") == "SELECT 0")
