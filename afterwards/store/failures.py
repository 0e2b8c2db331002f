"""What goes wrong with a database, as against wrong SQL: a driver's errors become `DatabaseUnavailable`."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg
from sqlalchemy import exc

from afterwards.errors import DatabaseUnavailable, OutcomeUnknown

__all__ = ["DatabaseUnavailable", "OutcomeUnknown", "translated"]

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


# SQLSTATEs: no connection, rolled back for another's sake (a deadlock), no resources or a full
# disk, a person's or a shutdown's interference, a system's error, and a server that only reads;
# each may go well the next time. https://www.postgresql.org/docs/current/errcodes-appendix.html
# 42P01: the tables are not there yet, as while a backup is restored.
AWAY_STATES = ("08", "40", "53", "57", "58", "25006", "42P01")


NO_DATABASE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


@contextmanager
def translated() -> Iterator[None]:
    """Raise `DatabaseUnavailable` for what the block raises, where the database is the reason."""
    try:
        yield
    except (*UNAVAILABLE, exc.DBAPIError, sqlite3.DatabaseError) as error:
        if not _is_the_databases_fault(error):
            raise
        reason = (
            str(getattr(error, "orig", None) or error)
            or f"no answer in time ({type(error).__name__})"
        )
        raise DatabaseUnavailable(reason) from error


def _is_the_databases_fault(error: BaseException) -> bool:
    if isinstance(error, UNAVAILABLE) or getattr(error, "connection_invalidated", False):
        return True
    origin = getattr(error, "orig", error)
    if getattr(origin, "sqlite_errorcode", 0) in NO_DATABASE:
        return True
    state = getattr(origin, "sqlstate", None) or ""
    return isinstance(getattr(origin, "__cause__", None), UNAVAILABLE) or state.startswith(
        AWAY_STATES
    )
