"""Hits in memory and in the database: counted for a window, bounded, and never an address."""

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from limits import parse
from limits.aio.storage import Storage
from limits.aio.strategies import FixedWindowRateLimiter

from web.counting import InDatabase, InMemory

pytestmark = pytest.mark.anyio

THREE = parse("3/minute")


@pytest.fixture
async def shared(database_url: str) -> AsyncIterator[list[InDatabase]]:
    """As many storages as processes."""
    storages = [InDatabase(database_url) for _ in range(2)]
    yield storages
    for storage in storages:
        await storage.close()


async def passed(storages: list[Storage], times: int, key: str = "k") -> int:
    limiters = [FixedWindowRateLimiter(storage) for storage in storages]
    hits = [limiters[at % len(limiters)].hit(THREE, key) for at in range(times)]
    return sum(await asyncio.gather(*hits))


async def test_memory_counts_to_the_limit() -> None:
    storage = InMemory()
    assert await passed([storage], 10) == 3
    assert await passed([storage], 10, "another") == 3


async def test_processes_share_the_databases_count(shared: list[InDatabase]) -> None:
    assert await passed([*shared], 10) == 3
    assert await passed([*shared], 10, "another") == 3


async def test_memories_share_nothing() -> None:
    assert await passed([InMemory(), InMemory()], 10) == 6


async def test_a_window_tells_its_end(shared: list[InDatabase]) -> None:
    for storage in (InMemory(), shared[0]):
        limiter = FixedWindowRateLimiter(storage)
        assert await limiter.hit(THREE, "k")
        reset_time, remaining = await limiter.get_window_stats(THREE, "k")
        assert remaining == 2
        assert 30 < reset_time - time.time() <= 60


async def test_a_window_ends(shared: list[InDatabase]) -> None:
    for storage in (InMemory(), shared[0]):
        assert await storage.incr("k", 0.05) == 1
        async with asyncio.timeout(10):
            while await storage.get("k"):  # noqa: ASYNC110 - nobody tells of the end
                await asyncio.sleep(0.01)
        assert [await storage.incr("k", 60) for _ in range(2)] == [1, 2]


async def test_what_is_given_back_is_free(shared: list[InDatabase]) -> None:
    for storage in (InMemory(), shared[0]):
        limiter = FixedWindowRateLimiter(storage)
        assert [await limiter.hit(THREE, "k") for _ in range(4)] == [True, True, True, False]
        assert [await limiter.hit(THREE, "k", cost=-1) for _ in range(2)] == [True, True]
        assert await limiter.hit(THREE, "k")
        assert not await limiter.hit(THREE, "k")


async def test_memory_holds_so_many_keys() -> None:
    storage = InMemory(max_keys=100)
    for number in range(1000):
        await storage.incr(f"address {number}", 60)
    assert await storage.get("address 0") == 0
    assert await storage.get("address 999") == 1
    assert await storage.reset() == 100


async def test_a_closed_storage_opens_again(shared: list[InDatabase]) -> None:
    assert await shared[0].incr("k", 60) == 1
    for _ in range(2):
        await shared[0].close()
    assert await shared[0].incr("k", 60) == 2


async def test_old_rows_are_pruned(shared: list[InDatabase]) -> None:
    storage = shared[0]
    await storage.incr("old", 0.001)
    await asyncio.sleep(0.01)
    storage.prune_at = 0.0
    await storage.incr("new", 60)
    assert await storage.keys() == ["new"]
