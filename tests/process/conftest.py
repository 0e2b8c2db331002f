"""Real servers and a real collector, which end with their test."""

import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from tests import serving
from tests.brokers import Broker
from tests.collector import Collector
from tests.databases import empty_database
from tests.fleet import Fleet
from tests.postgres import Postgres


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., serving.Server]]:
    servers: list[serving.Server] = []

    def start(**options: object) -> serving.Server:
        servers.append(serving.start(tmp_path, **options))  # type: ignore[arg-type]  # names its options itself
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture(scope="module")
def postgres() -> Iterator[Postgres]:
    if not list(Path("/usr/lib/postgresql").glob("*/bin/initdb")):
        pytest.skip(
            "Debian's package postgresql is not installed, and no other server may be frozen"
        )
    with tempfile.TemporaryDirectory() as directory:  # pytest's own are closed to any other user
        server = Postgres(Path(directory))
        yield server
        server.thaw()
        server.stop()


@pytest.fixture(params=["rabbitmq and postgres", "redis and sqlite"])
async def fleet(
    request: pytest.FixtureRequest,
    brokers: Callable[[str], Broker],
    serve: Callable[..., serving.Server],
    tmp_path: Path,
) -> AsyncIterator[Fleet]:
    """A broker, an empty database, and whatever the test starts beside them."""
    kind, _, database = request.param.partition(" and ")
    broker = brokers(kind)
    async with empty_database(database, tmp_path) as database_url:
        yield Fleet(serve, broker, database_url, tmp_path)


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector
