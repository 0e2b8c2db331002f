"""Real servers and a real collector, which end with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import serving
from tests.collector import Collector


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., serving.Server]]:
    servers: list[serving.Server] = []

    def start(**options: object) -> serving.Server:
        servers.append(serving.start(tmp_path, **options))  # type: ignore[arg-type]  # names its options itself
        return servers[-1]

    yield start
    for server in servers:
        server.kill()


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as collector:
        yield collector
