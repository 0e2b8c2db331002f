"""Many writes in one commit: what comes while one is under way is written by the next."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

from afterwards.store.database import Database
from afterwards.store.failures import DatabaseUnavailable
from afterwards.store.given import Row, Rows

log = logging.getLogger("tasks")

FIRST_PAUSE, LONGEST_PAUSE = 0.1, 2.0  # seconds between two tries to reach the database
# After a commit of more writes than this the next one waits so many seconds for others to join it:
# under load fewer and larger commits are quicker for everybody, because each takes the time of the
# event loop's thread. Whoever is alone never waits.
CROWD, CROWD_SECONDS = 8, 0.002


class _Write(NamedTuple):
    statement: str
    rows: Rows
    tell: Callable[[Exception | None], None]
    is_kept: bool = False  # tried again while the database is away


class GroupCommit:
    """Executes statements for many callers at once, and tells each when its rows are on disk.

    A commit that fails fails for all its callers: none of their rows is there. One whose outcome
    cannot be known (`OutcomeUnknown`) is the exception.
    """

    def __init__(self, database: Database, most: int = 250) -> None:
        self._database = database
        self._most = most
        self._gathered: list[_Write] = []
        self._writer: asyncio.Task[None] | None = None
        self._is_patient = False  # somebody waits a moment for another's commit
        self._pausing: asyncio.TimerHandle | None = None  # the database was away
        self._pause = FIRST_PAUSE
        self._is_closing = False

    def write(self, statement: str, rows: Rows) -> asyncio.Future[None]:
        """Execute the statement for the rows; what is returned is done when they are committed.

        Raises `DatabaseUnavailable`, when awaited. Being cancelled leaves open whether they will
        be.
        """
        committed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._gathered.append(_Write(statement, rows, partial(_set, committed)))
        self._begin()
        return committed

    def record(
        self, statement: str, row: Row, recorded: Callable[[], None], *, patience: float = 0.0
    ) -> None:
        """Execute the statement for the row, however long the database is away; then call back.

        With `patience` (s) it waits so long for another's commit that takes it along, which costs
        nothing. Only one that cannot be executed, or not until `close`, is dropped.
        """
        tell = partial(_told, recorded)
        self._gathered.append(_Write(statement, [row], tell, is_kept=True))
        if self._pausing or self._is_patient:
            return
        if patience:
            self._is_patient = True
            asyncio.get_running_loop().call_later(patience, self._end_patience)
        else:
            self._begin()

    async def close(self) -> None:
        """Wait until all that was asked for is written, or has failed."""
        self._is_closing = True
        self._begin()
        if self._writer is not None:
            await asyncio.shield(self._writer)

    def _begin(self) -> None:
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())

    def _end_patience(self) -> None:
        self._is_patient = False
        if self._gathered and not self._pausing:
            self._begin()

    def _end_pause(self) -> None:
        self._pausing = None
        self._begin()

    async def _write_all(self) -> None:
        while self._gathered:
            batch, self._gathered = self._gathered[: self._most], self._gathered[self._most :]
            error = await self._commit(batch)
            if isinstance(error, DatabaseUnavailable):
                self._give_up(batch, error)
                return
            self._pause = FIRST_PAUSE
            if self._pausing:
                self._pausing.cancel()
                self._pausing = None
            if error is not None and len(batch) > 1:
                await self._commit_each(batch)
                continue
            for write in batch:
                write.tell(error)
            if len(batch) > CROWD and not self._is_closing:
                await asyncio.sleep(CROWD_SECONDS)

    async def _commit_each(self, batch: Sequence[_Write]) -> None:
        """Commit by itself what cannot be committed together: one of them is at fault."""
        for write in batch:
            error = await self._commit([write])
            if isinstance(error, DatabaseUnavailable) and write.is_kept:
                self._gathered.insert(0, write)
            else:
                write.tell(error)

    async def _commit(self, batch: Sequence[_Write]) -> Exception | None:
        by_statement: dict[str, list[Row]] = {}
        for write in batch:
            by_statement.setdefault(write.statement, []).extend(write.rows)
        try:
            await self._database.write_together(by_statement)
        except Exception as error:
            return error
        return None

    def _give_up(self, batch: Sequence[_Write], error: DatabaseUnavailable) -> None:
        """Tell whoever waits for an answer, and try the others again."""
        # Who came meanwhile would wait as long, for the same.
        came, self._gathered = self._gathered, []
        others = DatabaseUnavailable(str(error))
        for writes, failed in ((batch, error), (came, others)):
            for write in writes:
                if not write.is_kept:
                    write.tell(failed)
        if not self._is_closing:
            self._gathered = [write for write in (*batch, *came) if write.is_kept]
        if self._gathered and not self._pausing:
            self._pausing = asyncio.get_running_loop().call_later(self._pause, self._end_pause)
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)


def _set(committed: asyncio.Future[None], error: Exception | None) -> None:
    if not committed.done():  # its caller may have been cancelled
        committed.set_exception(error) if error else committed.set_result(None)


def _told(recorded: Callable[[], None], error: Exception | None) -> None:
    if error is not None:
        log.error("the end of an attempt cannot be recorded: %s", error)
    recorded()
