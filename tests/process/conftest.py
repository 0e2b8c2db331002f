"""Real servers and a real collector, which end with their test."""

import tempfile
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests import serving
from tests.brokers import Broker
from tests.collector import Collector
from tests.databases import empty_database
from tests.fleet import Fleet
from tests.postgres import Postgres


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


HEARD: list[dict[str, str]] = []


class Webhook(BaseHTTPRequestHandler):
    """Answers every request with 204, and remembers its headers."""

    def do_POST(self) -> None:
        HEARD.append({name.lower(): value for name, value in self.headers.items()})
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(204)
        self.end_headers()

    do_GET = do_POST

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def webhook() -> Iterator[str]:
    """The address of a server that answers everything, as host:port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Webhook) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()
        HEARD.clear()


@pytest.fixture
def heard(webhook: str) -> list[dict[str, str]]:
    """The headers of each request to the webhook."""
    return HEARD
