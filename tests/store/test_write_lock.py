"""Who waits for SQLite's write lock gets it between others' writes, in a bounded time."""

import asyncio
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest

from afterwards.store import engines
from afterwards.store.database import Database
from afterwards.store.failures import DatabaseUnavailable

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)]

# SQLite tries after 328, 428, 528... ms, when the lock is held.
HELD_SECONDS, FREE_SECONDS = 0.37, 0.03
WRITE = "DELETE FROM {workers}"


class Hog(threading.Thread):
    """Another program that leaves the lock for a moment, and takes it again at once."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self.holds = threading.Event()
        self.is_stopped = threading.Event()
        self.gaps = 0

    def run(self) -> None:
        with closing(sqlite3.connect(self._path, timeout=30, isolation_level=None)) as connection:
            while not self.is_stopped.is_set():
                connection.execute("BEGIN IMMEDIATE")
                self.holds.set()
                self.is_stopped.wait(HELD_SECONDS)
                self.holds.clear()
                connection.execute("COMMIT")
                time.sleep(FREE_SECONDS)
                self.gaps += 1


@contextmanager
def hogged(path: Path) -> Iterator[Hog]:
    hog = Hog(path)
    hog.start()
    hog.holds.wait()
    try:
        yield hog
    finally:
        hog.is_stopped.set()
        hog.join()


async def in_a_transaction(database: Database) -> None:
    await database.change(WRITE)


async def together(database: Database) -> None:
    await database.write_together({WRITE: [()]})


@pytest.mark.parametrize("write", [in_a_transaction, together])
async def test_a_writer_uses_short_moments(
    write: Callable[[Database], Awaitable[None]], database: Database, tmp_path: Path
) -> None:
    writes = 6
    with hogged(tmp_path / "service.db") as hog:
        for _ in range(writes):
            await asyncio.to_thread(hog.holds.wait)
            with suppress(DatabaseUnavailable):
                await write(database)
    assert hog.gaps < 2 * writes  # looking every 100 ms it is twelve for each


@pytest.mark.parametrize("write", [in_a_transaction, together])
async def test_waiting_for_a_kept_lock_fails(
    write: Callable[[Database], Awaitable[None]],
    database_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(engines, "STATEMENT_SECONDS", 0.5)
    database = Database(database_url)
    await database.make_tables()
    with closing(sqlite3.connect(tmp_path / "service.db", isolation_level=None)) as connection:
        connection.execute("BEGIN IMMEDIATE")
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable, match="locked"):
            await write(database)
        assert time.monotonic() - began >= 0.5
    await write(database)  # and the same connection has it afterwards
    await database.close()


async def test_a_cancelled_wait_keeps_no_lock(database: Database, tmp_path: Path) -> None:
    with closing(
        sqlite3.connect(tmp_path / "service.db", timeout=30, isolation_level=None)
    ) as other:
        for seconds in (0.0, 0.01, 0.05, 0.1):
            other.execute("BEGIN IMMEDIATE")
            waiting = asyncio.create_task(in_a_transaction(database))
            await asyncio.wait([waiting], timeout=seconds)
            waiting.cancel()
            other.execute("COMMIT")
            await asyncio.wait([waiting])
            assert waiting.cancelled()
    await in_a_transaction(database)
