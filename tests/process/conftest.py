"""The fixture that starts real servers and ends them with their test."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests import serving


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Callable[..., serving.Server]]:
    servers: list[serving.Server] = []

    def start(**options: object) -> serving.Server:
        servers.append(serving.start(tmp_path, **options))  # type: ignore[arg-type]  # names its options itself
        return servers[-1]

    yield start
    for server in servers:
        server.kill()
