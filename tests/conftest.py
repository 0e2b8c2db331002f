"""What every test may ask for: empty databases, and the application without a server."""

from collections.abc import AsyncIterator, Callable, Iterator
from importlib.util import find_spec
from pathlib import Path

import httpx
import pytest
from starlette.applications import Starlette

import asgi_app
from settings import settings
from tests import serving
from tests.brokers import Broker
from tests.databases import empty_database
from tests.fleet import needs
from tests.lifespan import living


@pytest.fixture(scope="session")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(params=["sqlite", "postgres"])
async def database_url(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[str]:
    """An empty SQLite file, or an empty database on the server at `TEST_POSTGRES_URL`."""
    async with empty_database(request.param, tmp_path) as url:
        yield url


@pytest.fixture(scope="session")
def brokers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Broker]]:
    """Start a broker of this kind when it is first asked for; it ends with the tests."""
    running: dict[str, Broker] = {}

    def broker(kind: str) -> Broker:
        needs(kind)
        if kind not in running:
            running[kind] = Broker(kind, tmp_path_factory.mktemp(kind))
            running[kind].start()
        return running[kind]

    yield broker
    for each in running.values():
        each.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., serving.Server]]:
    """Start a server of the service, with these options; all end with the test."""
    servers: list[serving.Server] = []

    def start(**options: object) -> serving.Server:
        servers.append(serving.start(tmp_path, **options))  # type: ignore[arg-type]  # names its options itself
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Simulated work that takes no time, and files that vanish with the test."""
    for name in ("sleep_seconds", "notify_seconds", "work_seconds"):
        monkeypatch.setattr(settings, name, 0.01)
    monkeypatch.setattr(settings, "images_dir", tmp_path / "images")
    monkeypatch.setattr(settings, "drain_seconds", 5)
    monkeypatch.setattr(settings, "development", True)
    monkeypatch.setattr(settings, "allowed_hosts", "*")


@pytest.fixture
async def app(
    quick: None, monkeypatch: pytest.MonkeyPatch, database_url: str
) -> AsyncIterator[Starlette]:
    """The service in this process, over an empty database."""
    monkeypatch.setattr(settings, "database_url", database_url)
    app = asgi_app.create_app(settings)
    async with living(app):
        yield app


@pytest.fixture
async def client(app: Starlette) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the service in this process, which holds each answer against its description."""
    transport = httpx.ASGITransport(app, raise_app_exceptions=False)
    hooks = {"response": [_check] if find_spec("jsonschema") else []}
    async with httpx.AsyncClient(
        transport=transport, base_url="http://localhost", event_hooks=hooks
    ) as client:
        yield client


async def _check(response: httpx.Response) -> None:
    from tests import described  # it needs requirements-dev.txt

    await described.check(response)
