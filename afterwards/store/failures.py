"""What goes wrong with a database, as against wrong SQL: drivers' errors become our own."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from sqlalchemy import exc

from afterwards.errors import DatabaseUnavailable, OutcomeUnknown

__all__ = ["DatabaseUnavailable", "OutcomeUnknown", "SchemaRefused", "WrongConnection"]

POSTGRES: tuple[type[Exception], ...] = ()
SERVERS_OWN: tuple[type[Exception], ...] = ()
with suppress(ModuleNotFoundError):  # it is there only where a Postgres is used
    import asyncpg

    POSTGRES = (
        asyncpg.PostgresConnectionError,
        asyncpg.InterfaceError,
        asyncpg.InsufficientResourcesError,
        asyncpg.OperatorInterventionError,
        asyncpg.InvalidAuthorizationSpecificationError,
        asyncpg.InvalidCatalogNameError,
    )
    SERVERS_OWN = (asyncpg.PostgresError,)

# What a driver raises when the database is away, full, locked or read-only, as against wrong SQL.
UNAVAILABLE: tuple[type[Exception], ...] = (
    exc.OperationalError,
    sqlite3.OperationalError,
    exc.InterfaceError,
    exc.TimeoutError,
    *POSTGRES,
    OSError,
    TimeoutError,
)
RAISED: tuple[type[Exception], ...] = (
    *UNAVAILABLE,
    *SERVERS_OWN,
    exc.DBAPIError,
    sqlite3.DatabaseError,
)


# SQLSTATEs: no connection, rolled back for another's sake (a deadlock), no resources or a full
# disk, a person's or a shutdown's interference, a system's error, and a server that only reads;
# each may go well the next time. https://www.postgresql.org/docs/current/errcodes-appendix.html
CUT_OFF = "57P01"  # by an administrator, or a server that shuts down
NO_TABLE = "42P01"  # they are not there yet, as while a backup is restored
AWAY_STATES = ("08", "40", "53", "57", "58", "25006", NO_TABLE)


NO_DATABASE = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)


class SchemaRefused(DatabaseUnavailable):
    """The tables are another's, or of a newer version: somebody must act; nothing was changed."""


class WrongConnection(ValueError):
    """A caller's own connection is one to a database where the tables are not."""


def is_missing_table(error: exc.DBAPIError) -> bool:
    """Tell whether a statement failed for want of a table."""
    return getattr(error.orig, "sqlstate", "") == NO_TABLE or "no such table" in str(error.orig)


def is_cut_off(error: DatabaseUnavailable) -> bool:
    """Tell whether the server ended the connection, and with it what was under way."""
    return getattr(error.__cause__, "sqlstate", "") == CUT_OFF


@contextmanager
def translated() -> Iterator[None]:
    """Raise `DatabaseUnavailable` for what the block raises, where the database is the reason."""
    try:
        yield
    except RAISED as error:
        if not _is_the_databases_fault(error):
            raise
        raise DatabaseUnavailable(reason(error)) from error


def reason(error: BaseException) -> str:
    """Say in the driver's words what went wrong, or what it means where it has none."""
    said = str(getattr(error, "orig", None) or error)
    return said or f"no answer in time ({type(error).__name__})"


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
