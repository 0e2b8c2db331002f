"""SQLite's group commits, each in one visit to a thread of their own.

Through SQLAlchemy's asyncio extension a commit takes some eight visits: 1.4 ms for a lone one.
"""

import asyncio
import sqlite3
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any

from sqlalchemy import Executable
from sqlalchemy.dialects import sqlite
from sqlalchemy.sql.elements import ClauseElement

DIALECT = sqlite.dialect(paramstyle="named")

Batch = Mapping[Executable, Mapping[str, Any]]


class SQLiteWriter:
    """One connection to the file at `path`, for statements that return nothing; `timeout` (s) is for its write lock."""

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._connection: sqlite3.Connection | None = None

    async def write(self, batch: Batch) -> None:
        """Execute each statement with its parameters, in one transaction; raise `sqlite3.Error`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch)

    def close(self) -> None:
        """Close the connection, once what was begun is written."""
        self._thread.submit(self._disconnect)
        self._thread.shutdown(wait=False)

    def _write(self, batch: Batch) -> None:
        connection = self._connected()
        connection.execute("BEGIN IMMEDIATE")
        try:
            for statement, parameters in batch.items():
                sql, fixed = _compiled(statement)
                connection.execute(sql, {**fixed, **parameters})
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has rolled it back already
                connection.execute("ROLLBACK")
            raise

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self._path, timeout=self._timeout, isolation_level=None, check_same_thread=False
            )
            connection.execute("PRAGMA synchronous=FULL")
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()


@lru_cache
def _compiled(statement: Executable) -> tuple[str, dict[str, Any]]:
    """Return the SQL, and the parameters that the statement itself brings."""
    assert isinstance(statement, ClauseElement)
    compiled = statement.compile(dialect=DIALECT)
    return str(compiled), dict(compiled.params)
