"""A Postgres that says nothing: its connection is given up, once and at once."""

import asyncio
import time
from pathlib import Path

import asyncpg
import pytest

from afterwards.store.driver import CLOSING_SECONDS, HastyConnection
from tests.databases import empty_database
from tests.proxy import Proxy

pytestmark = pytest.mark.anyio


async def test_a_silent_ping_closes_its_connection(tmp_path: Path) -> None:
    async with empty_database("postgres", tmp_path) as url:
        with Proxy(url) as between:
            connection = await asyncpg.connect(
                between.url, connection_class=HastyConnection, command_timeout=5
            )
            assert await connection.fetchrow("SELECT 1") == (1,)
            assert not connection.is_closed()
            between.freeze()
            with pytest.raises(TimeoutError):
                await connection.fetchrow(";", timeout=0.1)
            assert connection.is_closed()


async def test_a_silent_connection_closes_soon(tmp_path: Path) -> None:
    async with empty_database("postgres", tmp_path) as url:
        with Proxy(url) as between:
            connection = await asyncpg.connect(between.url, connection_class=HastyConnection)
            between.freeze()
            began = time.monotonic()
            async with asyncio.timeout(10 * CLOSING_SECONDS):
                with pytest.raises(TimeoutError):
                    await connection.close(timeout=60)
            assert time.monotonic() - began >= CLOSING_SECONDS / 2
            assert connection.is_closed()
