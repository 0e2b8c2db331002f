"""Postgres: its engine and its driver's errors; imported only where a URL names it."""

from typing import Any

import asyncpg
from sqlalchemy import event
from sqlalchemy.engine import URL
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from afterwards.store import pooler
from afterwards.store.hasty import HastyConnection

# What the driver raises when the database is away, and SQLAlchemy leaves as it is.
UNAVAILABLE = (
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
)


def engine(
    url: URL, *, connect_seconds: float, statement_seconds: float, **pool: Any
) -> AsyncEngine:
    """Return an engine that waits for a silent server no longer than this."""
    waits = {"timeout": connect_seconds, "command_timeout": statement_seconds}
    made = create_async_engine(
        url, **pool, connect_args=waits | {"connection_class": HastyConnection}
    )
    event.listen(made.sync_engine, "do_connect", pooler.connect)
    return made
