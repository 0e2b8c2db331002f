"""SQLite's group commits, each in one visit to a thread of their own.

Through SQLAlchemy's asyncio extension a commit takes some eight visits: 1.4 ms for a lone one.
"""

import asyncio
import sqlite3
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import aiosqlite

FEW_PAGES = 4096  # of 4 KiB: so many free ones are not worth the work of giving them back
LARGE_LOG = (
    64 * 1024 * 1024
)  # bytes, which the write-ahead log exceeds only while somebody reads for long
LAST_FRAMES = 1000  # pages that a checkpoint may copy while it holds writers up
# For so long SQLite looks for its lock every few ms, and from then on every 100 only: a process
# that others leave none but short moments would never find one. So a writer asks anew.
POLL_SECONDS = 0.03
CHECKPOINT_SECONDS = 0.02  # for which a checkpoint waits for readers, and writers wait for it

Batch = Sequence[tuple[str, Sequence[Any]]]  # statements with their parameters


class SQLiteWriter:
    """One connection to the file at `path`, which waits `timeout` (s) for the write lock."""

    def __init__(self, path: str, timeout: float) -> None:
        self._path = path
        self._timeout = timeout
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sqlite-writer")
        self._connection: sqlite3.Connection | None = None

    async def write(self, batch: Batch) -> None:
        """Execute each statement with its parameters, in one transaction; raise `sqlite3.Error`."""
        await asyncio.get_running_loop().run_in_executor(self._thread, self._write, batch)

    async def write_timed(
        self, statement: str, values: Mapping[str, Any]
    ) -> tuple[list[Any], float]:
        """Execute as above; give the rows' first column, and the seconds that it held the lock."""
        return await asyncio.get_running_loop().run_in_executor(
            self._thread, self._write_timed, statement, values
        )

    async def vacuum(self, most: int) -> tuple[int, float]:
        """Give at most so many free pages back to the disk; return how many, and as above."""
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._vacuum, most)

    def close(self) -> None:
        """Close the connection, once what was begun is written."""
        self._thread.submit(self._disconnect)
        self._thread.shutdown(wait=False)

    def _write(self, batch: Batch) -> None:
        with self._locked() as connection:
            for statement, values in batch:
                connection.execute(statement, values)

    def _write_timed(self, statement: str, values: Mapping[str, Any]) -> tuple[list[Any], float]:
        with self._locked() as connection:
            began = time.monotonic()
            rows = [row[0] for row in connection.execute(statement, values)]
        return rows, time.monotonic() - began

    def _vacuum(self, most: int) -> tuple[int, float]:
        free = self._count("freelist_count")
        if free < max(
            FEW_PAGES, self._count("page_count") // 4
        ):  # what is written next takes them again
            return 0, 0.0
        with self._locked() as connection:
            began = time.monotonic()
            for _ in range(
                min(most, free)
            ):  # one each: the driver takes no second step of what gives no columns
                connection.execute("PRAGMA incremental_vacuum(1)")
        return free - self._count("freelist_count"), time.monotonic() - began

    def _count(self, what: str) -> int:
        [number] = self._connected().execute(f"PRAGMA {what}").fetchone()
        return int(number)

    @contextmanager
    def _locked(self) -> Iterator[sqlite3.Connection]:
        connection = self._connected()
        self._lock(connection)
        try:
            yield connection
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:  # a full disk has rolled it back already
                connection.execute("ROLLBACK")
            raise

    def _lock(self, connection: sqlite3.Connection) -> None:
        deadline = time.monotonic() + self._timeout
        while True:
            try:
                connection.execute("BEGIN IMMEDIATE")
                return
            except sqlite3.OperationalError as error:
                if not _may_ask_again(error, deadline):
                    raise

    def _connected(self) -> sqlite3.Connection:
        if self._connection is None:
            connection = sqlite3.connect(
                self._path, timeout=POLL_SECONDS, isolation_level=None, check_same_thread=False
            )
            prepare(connection)
            self._connection = connection
        return self._connection

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()


async def lock(driver: aiosqlite.Connection, timeout: float) -> None:
    """Begin a transaction with the write lock, and wait so long (s); raise `sqlite3.Error`.

    The connection's own timeout must be `POLL_SECONDS`.
    """
    deadline = time.monotonic() + timeout
    while True:
        try:
            await driver.execute("BEGIN IMMEDIATE")
            return
        except sqlite3.OperationalError as error:
            if not _may_ask_again(error, deadline):
                raise


def _may_ask_again(error: sqlite3.Error, deadline: float) -> bool:
    """Tell whether another has the write lock, and there is time left to wait for it."""
    is_busy = (
        getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY
    )  # the higher bits say why
    return is_busy and time.monotonic() < deadline


def prepare(connection: Any) -> None:
    """Set what SQLite keeps for each connection, of any driver, and not in the file."""
    cursor = connection.cursor()  # by its own hand, because SQLAlchemy 2.0 adapts no other
    for pragma in ("synchronous=FULL", "foreign_keys=ON", f"journal_size_limit={LARGE_LOG}"):
        cursor.execute(f"PRAGMA {pragma}")
    cursor.close()


def bound_log(path: Path) -> None:
    """Empty the write-ahead log if it is large, as far as readers allow; raise `sqlite3.Error`.

    Where there always is a reader, SQLite itself would go on at the log's end for ever: somebody
    must make them wait.
    """
    log = path.with_name(f"{path.name}-wal")
    with suppress(FileNotFoundError):
        if log.stat().st_size <= LARGE_LOG:
            return
        with closing(sqlite3.connect(path, timeout=CHECKPOINT_SECONDS)) as connection:
            # It holds no writer up, so most of the work is done by this one.
            _, frames, copied = connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            if frames - copied < LAST_FRAMES:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
