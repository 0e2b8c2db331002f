"""Who waits is woken once, and what many ask for is read in a few questions."""

import asyncio
from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import pytest

from afterwards import waiting
from afterwards.store.failures import DatabaseUnavailable
from afterwards.waiting import ReadTogether, Waiters

pytestmark = pytest.mark.anyio


class Rows:
    """Rows that can be read and may have ended, and the questions that were asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.ends: set[str] = set()
        self.is_asked = asyncio.Event()
        self.is_away = False

    async def read(self, ids: Collection[str]) -> list[Any]:
        self.asked.append([*ids])
        self.is_asked.set()
        await asyncio.sleep(0)
        if self.is_away:
            raise DatabaseUnavailable("away")
        return [SimpleNamespace(id=id) for id in ids if id != "none"]

    async def ended(self, ids: Collection[str]) -> set[str]:
        await self.read(ids)
        return self.ends & {*ids}


@pytest.fixture
def rows() -> Rows:
    return Rows()


async def woken(waiters: Waiters, id: str) -> bool:
    with waiters.waiting(id) as end:
        if end is not None:
            await end
        return end is not None


async def test_a_local_end_wakes_who_waits(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "POLL_SECONDS", 3600)
    waiters = Waiters(rows.ended)
    a, b = asyncio.create_task(woken(waiters, "a")), asyncio.create_task(woken(waiters, "b"))
    await asyncio.sleep(0)
    waiters.tell("nobody waits for this")
    waiters.tell("a")
    assert await a
    assert not b.done()
    b.cancel()


async def test_all_who_wait_share_one_question(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "TICK_SECONDS", 0.001)
    monkeypatch.setattr(waiting, "POLL_SECONDS", 0.001)
    waiters = Waiters(rows.ended)
    rows.is_away = True  # is borne
    asking = [asyncio.create_task(woken(waiters, str(number % 10))) for number in range(100)]
    await rows.is_asked.wait()
    rows.is_away, rows.ends = False, {str(number) for number in range(10)}
    assert all(await asyncio.gather(*asking))
    assert {len(ids) for ids in rows.asked} == {10}


async def test_only_so_many_may_wait(rows: Rows, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "MOST_WAITING", 1)
    waiters = Waiters(rows.ended)
    first = asyncio.create_task(woken(waiters, "a"))
    await asyncio.sleep(0)
    assert not await woken(waiters, "a")
    waiters.tell("a")
    assert await first
    last = asyncio.create_task(woken(waiters, "a"))
    await asyncio.sleep(0)
    waiters.tell("a")
    assert await last


async def test_rows_are_read_together(rows: Rows) -> None:
    together = ReadTogether(rows.read)
    found = await asyncio.gather(
        *(together.row(f"{number}") for number in range(2000)), together.row("none")
    )
    assert [row and row.id for row in found] == [*map(str, range(2000)), None]
    assert len(rows.asked) == 5


async def test_a_failed_reading_fails_its_askers(rows: Rows) -> None:
    together = ReadTogether(rows.read)
    rows.is_away = True
    failed = await asyncio.gather(together.row("a"), together.row("a"), return_exceptions=True)
    assert [type(error) for error in failed] == [DatabaseUnavailable] * 2
    rows.is_away = False
    assert await together.row("a")


async def test_who_leaves_takes_nobodys_row(rows: Rows) -> None:
    together = ReadTogether(rows.read)
    leaving, staying = (
        asyncio.create_task(together.row("a")),
        asyncio.create_task(together.row("a")),
    )
    await asyncio.sleep(0)
    leaving.cancel()
    assert await staying
