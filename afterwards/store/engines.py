"""SQLAlchemy's engines: how long they wait, and what each connection is told."""

import re
from importlib.util import find_spec
from typing import Any

from sqlalchemy import Connection, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from afterwards.store.sql import OWN
from afterwards.store.sqlite_writer import POLL_SECONDS, lock, prepare

CONNECT_SECONDS = 3.0  # a dead host must become a 503 while the client still waits
STATEMENT_SECONDS = 5.0  # for a statement, for SQLite's write lock, and for a free connection
# In the pool; with those that commit and claim a process has 8: small plans allow 20 for all.
CONNECTIONS = 6
# An error's text goes to logs and spans: no values of its statement, which people typed.
QUIET = {"hide_parameters": True}
# For each connection to Postgres: rows are found by their keys, whatever its statistics say, or do
# not say yet.
PLANNING = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off"}


KINDS = re.compile(r"sqlite:///[^:]|postgres(ql)?(\+asyncpg)?://.")


def check_url(url: object) -> None:
    """Raise a ValueError that says what is wrong with a database's URL, if anything is."""
    try:
        is_right = isinstance(url, str) and KINDS.match(url) is not None and bool(make_url(url))
    except (ValueError, ArgumentError):  # a port that is none
        is_right = False
    if not is_right:
        raise ValueError("url: takes sqlite:///path or postgres://user:password@host/name")
    if not str(url).startswith("sqlite") and find_spec("asyncpg") is None:
        raise ValueError("url: takes the driver too: pip install 'afterwards[postgres]'")


def with_driver(url: URL) -> URL:
    """Give the URL with the driver that is used here, whatever spelling it came in."""
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


def writing(url: URL) -> AsyncEngine:
    """Make the engine whose transactions may write."""
    if url.get_backend_name() == "sqlite":
        return sqlite(url, is_reading=False)
    return postgres(
        url,
        pool_timeout=STATEMENT_SECONDS,
        pool_size=CONNECTIONS,
        max_overflow=0,  # to open and close a connection costs more than to wait for one
    )


def postgres(url: URL, **pool: Any) -> AsyncEngine:
    """Make an engine of a Postgres server; raise ValueError where its driver is not installed."""
    try:
        from afterwards.store import driver  # only here: with SQLite nobody needs asyncpg
    except ModuleNotFoundError:
        raise ValueError(
            "url: names a Postgres, which takes `pip install 'afterwards[postgres]'`"
        ) from None
    waits = {"timeout": CONNECT_SECONDS, "command_timeout": STATEMENT_SECONDS}
    engine = create_async_engine(
        url,
        **pool,
        **QUIET,
        connect_args=waits
        | {"connection_class": driver.HastyConnection, "record_class": driver.NamedRecord},
    )
    event.listen(engine.sync_engine, "do_connect", driver.connect)
    event.listen(engine.sync_engine, "checkout", driver.leave_closed)
    event.listen(engine.sync_engine, "handle_error", driver.leave_silent)
    return engine


def sqlite(url: URL, *, is_reading: bool) -> AsyncEngine:
    """Make an engine of an SQLite file; one that writes takes its lock first."""
    timeout = STATEMENT_SECONDS if is_reading else POLL_SECONDS
    engine = create_async_engine(
        url, pool_timeout=STATEMENT_SECONDS, connect_args={"timeout": timeout}, **QUIET
    )
    event.listen(engine.sync_engine, "connect", _prepare_sqlite)
    event.listen(engine.sync_engine, "begin", _begin_reading if is_reading else _begin_writing)
    return engine


def _prepare_sqlite(connection: Any, record: object) -> None:
    # The driver would begin by itself, and too late to take the write lock.
    connection.isolation_level = None
    prepare(connection)


def _begin_reading(connection: Connection) -> None:
    connection.exec_driver_sql("BEGIN", execution_options={OWN: True})


def _begin_writing(connection: Connection) -> None:
    # A transaction that turns from reading to writing half-way fails at once where another writes;
    # so take the write lock first, and wait for it.
    adapted: Any = connection.connection.dbapi_connection
    adapted.run_async(lambda driver: lock(driver, STATEMENT_SECONDS))
