"""What every test may ask for: an empty database of each kind, and the application without a server."""

import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import httpx
import pytest
from sqlalchemy.engine import make_url

import asgi_app
from settings import settings

POSTGRES = os.environ.get("TEST_POSTGRES_URL", "")


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgres"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """An empty database: a SQLite file, and a database of its own on the server at `TEST_POSTGRES_URL`."""
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/service.db"
        return
    if not POSTGRES:
        pytest.skip("TEST_POSTGRES_URL names no Postgres server")
    name = f"test_{secrets.token_hex(8)}"
    admin = await asyncpg.connect(POSTGRES)
    await admin.execute(f"CREATE DATABASE {name}")
    yield make_url(POSTGRES).set(database=name).render_as_string(hide_password=False)
    await admin.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await admin.close()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Simulated work that takes no time, and files that vanish with the test."""
    for name in ("sleep_seconds", "notify_seconds", "work_seconds"):
        monkeypatch.setattr(settings, name, 0.01)
    monkeypatch.setattr(settings, "images_dir", tmp_path / "images")
    monkeypatch.setattr(settings, "drain_seconds", 5)


@pytest.fixture
async def client(quick: None, monkeypatch: pytest.MonkeyPatch, database_url: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the application in this process; the tasks have ended when the test's `drained` returns."""
    monkeypatch.setattr(settings, "database_url", database_url)
    async with asgi_app.lifespan(asgi_app.app):
        transport = httpx.ASGITransport(asgi_app.app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
            yield client
