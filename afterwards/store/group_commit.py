"""Many writes in one commit: what comes while one is under way is written by the next."""

import asyncio
from collections.abc import Sequence

from afterwards.store.database import Database
from afterwards.store.failures import DatabaseUnavailable
from afterwards.store.given import Row, Rows

Write = tuple[str, Rows, asyncio.Future[None]]


class GroupCommit:
    """Executes statements for many callers at once; each goes on when its rows are on disk.

    A commit that fails fails for all its callers, who may try again: none of their rows is there.
    One whose outcome cannot be known (`OutcomeUnknown`) is the exception.
    """

    def __init__(self, database: Database, most: int = 250) -> None:
        self._database = database
        self._most = most
        self._gathered: list[Write] = []
        self._writer: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None

    def write(self, statement: str, rows: Rows, *, patience: float = 0.0) -> asyncio.Future[None]:
        """Execute the statement for the rows; what is returned is done when they are committed.

        With `patience` (s) they wait so long for another's commit that takes them along, which
        costs nothing. Raises `DatabaseUnavailable`, when awaited. Being cancelled leaves open
        whether they will be.
        """
        loop = asyncio.get_running_loop()
        committed: asyncio.Future[None] = loop.create_future()
        self._gathered.append((statement, rows, committed))
        if not patience:
            self._begin()
        elif self._timer is None:
            self._timer = loop.call_later(patience, self._begin)
        return committed

    async def close(self) -> None:
        """Wait until all that was asked for is written, or has failed."""
        self._begin()
        if self._writer is not None:
            await asyncio.shield(self._writer)

    def _begin(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        while self._gathered:
            batch, self._gathered = self._gathered[: self._most], self._gathered[self._most :]
            error = await self._commit(batch)
            _tell(batch, error)
            if isinstance(
                error, DatabaseUnavailable
            ):  # who came meanwhile would wait as long, for the same
                unwritten, self._gathered = self._gathered, []
                _tell(unwritten, DatabaseUnavailable(str(error)))

    async def _commit(self, batch: Sequence[Write]) -> Exception | None:
        by_statement: dict[str, list[Row]] = {}
        for statement, rows, _ in batch:
            by_statement.setdefault(statement, []).extend(rows)
        try:
            await self._database.write_together(by_statement)
        except Exception as error:
            return error
        return None


def _tell(writes: Sequence[Write], error: Exception | None) -> None:
    for _, _, committed in writes:
        if not committed.done():  # its caller may have been cancelled
            committed.set_exception(error) if error else committed.set_result(None)
