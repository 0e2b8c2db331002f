"""Empty databases of either kind, which end with their test."""

import os
import secrets
import sqlite3
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing, contextmanager, nullcontext
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

POSTGRES = os.environ.get("TEST_POSTGRES_URL", "")


@asynccontextmanager
async def empty_database(kind: str, directory: Path) -> AsyncIterator[str]:
    """Make an empty SQLite file, or database on the server at `TEST_POSTGRES_URL`; give its URL."""
    if kind == "sqlite":
        yield f"sqlite:///{directory}/service.db"
        return
    if not POSTGRES:
        pytest.skip("TEST_POSTGRES_URL names no Postgres server")
    name = f"test_{secrets.token_hex(8)}"
    admin = await asyncpg.connect(POSTGRES)
    await admin.execute(f"CREATE DATABASE {name}")
    yield make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold SQLite's write lock, as a backup or a long migration does."""
    with closing(sqlite3.connect(path, isolation_level=None, timeout=30)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        yield
        connection.execute("ROLLBACK")


@contextmanager
def not_writing(database_url: str) -> Iterator[None]:
    """Keep SQLite's write lock from all others: whoever stood still with it would keep it."""
    url = make_url(database_url)
    with locked(Path(url.database or "")) if url.get_backend_name() == "sqlite" else nullcontext():
        yield
