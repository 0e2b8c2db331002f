"""Who waits for a task's end: woken from memory if it ends here, else by one poll for all.

What is read for those who ask is read together, by one connection at a time, however many they are.
"""

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from contextvars import Context
from typing import Any

from afterwards import server
from afterwards.store.failures import DatabaseUnavailable

MOST_WAITING = 1000  # in a process; who comes beyond is told how the task stands now
POLL_SECONDS = 1.0  # how late an end in another process may be noticed
TICK_SECONDS = 0.1  # how late a shutdown may be
CHUNK = 500  # tasks in one question

Read = Callable[[Collection[str]], Awaitable[Sequence[Any]]]


class Waiters:
    """The requests that wait here; `ended` gives those of these ids whose tasks have ended."""

    def __init__(self, ended: Callable[[Collection[str]], Awaitable[Collection[str]]]) -> None:
        self._ended = ended
        self._waiting: dict[str, set[asyncio.Future[None]]] = {}
        self._count = 0
        self._watching: asyncio.Task[None] | None = None

    @contextmanager
    def waiting(self, id: str) -> Iterator[asyncio.Future[None] | None]:
        """Yield what is done when the task may have ended; None if too many wait, or at the end."""
        if self._count >= MOST_WAITING or server.is_stopping():
            yield None
            return
        woken: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(id, set()).add(woken)
        self._count += 1
        if self._watching is None or self._watching.done():
            self._watching = asyncio.create_task(self._watch(), context=Context())
        try:
            yield woken
        finally:
            self._count -= 1
            self._forget(id, woken)

    def tell(self, id: str) -> None:
        """Wake those who wait for this task: it has ended, as far as this process knows."""
        for woken in self._waiting.pop(id, ()):
            if not woken.done():
                woken.set_result(None)

    def _forget(self, id: str, woken: asyncio.Future[None]) -> None:
        others = self._waiting.get(id, set())
        others.discard(woken)
        if not others:
            self._waiting.pop(id, None)

    async def _watch(self) -> None:
        ticks = 0
        while self._count:
            await asyncio.sleep(TICK_SECONDS)
            ticks += 1
            if server.is_stopping():
                self._tell_all(list(self._waiting))
            elif ticks * TICK_SECONDS >= POLL_SECONDS:
                ticks = 0
                await self._poll()

    async def _poll(self) -> None:
        ids = list(self._waiting)
        try:
            for start in range(0, len(ids), CHUNK):
                self._tell_all(await self._ended(ids[start : start + CHUNK]))
        except DatabaseUnavailable:
            return  # the heartbeat tells of it; who waits no longer is told by what is read then

    def _tell_all(self, ids: Collection[str]) -> None:
        for id in ids:
            self.tell(id)


class ReadTogether:
    """Reads rows by id for many callers at once: who comes while it reads shares the next read."""

    def __init__(self, read: Read) -> None:
        self._read = read
        self._asked: dict[str, asyncio.Future[Any]] = {}
        self._reader: asyncio.Task[None] | None = None

    async def row(self, id: str) -> Any | None:
        """Return the row as it is at this moment or later, None if there is none."""
        if id not in self._asked:
            self._asked[id] = asyncio.get_running_loop().create_future()
        row = self._asked[id]
        if self._reader is None or self._reader.done():
            self._reader = asyncio.create_task(self._read_all(), context=Context())
        return await asyncio.shield(row)  # others may wait for it as well

    async def _read_all(self) -> None:
        while self._asked:
            ids = list(self._asked)[:CHUNK]
            asked = {id: self._asked.pop(id) for id in ids}
            try:
                found = {row.id: row for row in await self._read(ids)}
            except Exception as error:
                for future in asked.values():
                    future.set_exception(error)
                    future.exception()  # its caller may have gone
                continue
            for id, future in asked.items():
                future.set_result(found.get(id))
