"""Empty databases of either kind, which end with their test."""

import os
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest
from sqlalchemy.engine import make_url

POSTGRES = os.environ.get("TEST_POSTGRES_URL", "")


@asynccontextmanager
async def empty_database(kind: str, directory: Path) -> AsyncIterator[str]:
    """Give the URL of a SQLite file, or of a database of its own on the server at `TEST_POSTGRES_URL`."""
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
