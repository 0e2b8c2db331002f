"""Those who wait for a task take no connection, hold nobody up, and hear of it in time."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest

from afterwards.waiting import MOST_WAITING
from tests.serving import Server, until

pytestmark = pytest.mark.anyio

Serve = Callable[..., Server]

LONG = {"SLEEP_SECONDS": "300", "DRAIN_SECONDS": "0.1"}


@asynccontextmanager
async def waiters(server: Server, id: str, count: int) -> AsyncIterator[set[asyncio.Task[bytes]]]:
    """The answers that so many clients wait for; they hang up at the end."""
    connections = []
    try:
        port = server.port
        for _ in range(0, count, 10):
            ten = await asyncio.gather(
                *(asyncio.open_connection("127.0.0.1", port) for _ in range(10))
            )
            connections.extend(ten)
            for _, writer in ten:
                writer.write(f"GET /tasks/{id}?wait=25 HTTP/1.1\r\nHost: a\r\n\r\n".encode())
        yield {asyncio.create_task(reader.readuntil(b"}")) for reader, _ in connections}
    finally:
        for _, writer in connections:
            writer.close()


async def get(server: Server, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=server.url, timeout=60) as client:
        return await client.get(path)


async def test_two_thousand_waiters_hold_nobody_up(serve: Serve, database_url: str) -> None:
    server = serve(DATABASE_URL=database_url, **LONG)
    id = (await get(server, "/test")).headers["task-id"]
    async with waiters(server, id, 2 * MOST_WAITING) as answers:
        ready, others = set[asyncio.Task[bytes]](), answers
        while len(ready) < MOST_WAITING:
            done, others = await asyncio.wait(
                others, timeout=15, return_when=asyncio.FIRST_COMPLETED
            )
            assert done
            ready |= done
        assert (await get(server, "/health")).status_code == 200
        assert (await get(server, "/test")).status_code == 200
        assert not all(answer.done() for answer in others)
        assert {b'"state":"running"' in answer.result() for answer in ready} == {True}
        for answer in others:
            answer.cancel()


async def test_leaving_clients_make_room_for_others(serve: Serve, database_url: str) -> None:
    server = serve(DATABASE_URL=database_url, **LONG)
    id = (await get(server, "/test")).headers["task-id"]

    def waits() -> bool:
        began = time.monotonic()
        httpx.get(f"{server.url}/tasks/{id}?wait=1", timeout=60)
        return time.monotonic() - began >= 1

    async with waiters(server, id, MOST_WAITING) as answers:
        await asyncio.to_thread(until, lambda: not waits(), 20)
        for answer in answers:
            answer.cancel()
    await asyncio.to_thread(until, waits, 20)


async def test_waiters_do_not_delay_the_shutdown(serve: Serve) -> None:
    server = serve(**LONG)
    id = (await get(server, "/test")).headers["task-id"]
    waiting = asyncio.create_task(get(server, f"/tasks/{id}?wait=25"))
    await asyncio.to_thread(until, lambda: f"/tasks/{id}" in server.log() or not waiting.done(), 5)
    async with waiters(server, id, 10) as answers:
        assert await asyncio.to_thread(server.stop) < 15
        assert {b'"state":"running"' in await answer for answer in answers} == {True}
    assert (await waiting).json()["state"] == "running"


async def test_waiters_see_what_another_process_settles(serve: Serve, database_url: str) -> None:
    running, other = (serve(DATABASE_URL=database_url, SLEEP_SECONDS="2") for _ in range(2))
    assert (await get(other, "/health")).status_code == 200
    id = (await get(running, "/test")).headers["task-id"]
    assert (await get(other, f"/tasks/{id}?wait=25")).json()["state"] == "succeeded"
