"""Who is dead: a worker's silence counts as far as another has listened to it, and no further."""

from collections.abc import AsyncIterator
from types import SimpleNamespace

import pytest

from afterwards import heartbeat
from afterwards.heartbeat import Heartbeat
from afterwards.rescue import BEAT_SECONDS, DEAD_SECONDS
from afterwards.store.database import Database
from afterwards.store.tasks import Store

pytestmark = pytest.mark.anyio


class Clock:
    """The monotonic clock as a heartbeat sees it, set by hand."""

    def __init__(self) -> None:
        self.now = 1_000.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(heartbeat, "time", SimpleNamespace(monotonic=clock.monotonic))
    return clock


@pytest.fixture
async def store(database: Database) -> Store:
    return Store(database)


@pytest.fixture
async def watcher(clock: Clock, store: Store) -> AsyncIterator[Heartbeat]:
    watcher = Heartbeat(store, held=list, cancel=lambda id: None, found=lambda: None)
    yield watcher
    watcher.end()


async def beats(watcher: Heartbeat, clock: Clock, times: int, pause: float) -> None:
    for _ in range(times):
        clock.now += pause
        await watcher.beat()


async def test_a_silent_worker_is_dead(watcher: Heartbeat, clock: Clock, store: Store) -> None:
    await store.register("silent")
    await beats(watcher, clock, int(DEAD_SECONDS / BEAT_SECONDS) + 2, BEAT_SECONDS)
    assert [*await store.beats()] == [watcher.identity]


async def test_a_slow_watcher_finds_the_dead(
    watcher: Heartbeat, clock: Clock, store: Store
) -> None:
    await store.register("silent")
    await beats(watcher, clock, 5, 3 * BEAT_SECONDS)  # a busy machine: each beat comes late
    assert [*await store.beats()] == [watcher.identity]


async def test_an_outage_is_nobodys_silence(watcher: Heartbeat, clock: Clock, store: Store) -> None:
    await store.register("silent")
    await beats(watcher, clock, 2, BEAT_SECONDS)
    await beats(watcher, clock, 1, 100.0)  # the database was away, for whoever has to beat as well
    assert {*await store.beats()} == {watcher.identity, "silent"}


async def test_a_beat_ends_the_silence(watcher: Heartbeat, clock: Clock, store: Store) -> None:
    await store.register("slow")
    for _ in range(10):
        await beats(watcher, clock, 3, BEAT_SECONDS)
        await store.beat("slow")
    assert {*await store.beats()} == {watcher.identity, "slow"}
