"""Commits of many rows: an answer that is lost is asked for, and what never came is tried anew."""

import math
import time
from collections.abc import Mapping

from sqlalchemy.ext.asyncio import AsyncEngine

from afterwards.store import lost_commit
from afterwards.store.failures import DatabaseUnavailable, OutcomeUnknown, is_cut_off, translated
from afterwards.store.given import Rows
from afterwards.store.postgres_writer import PostgresWriter
from afterwards.store.sql import Sql
from afterwards.store.sqlite_writer import SQLiteWriter


class Commits:
    """Writes through `writer`; `asking` is the engine by which lost answers are asked for."""

    def __init__(
        self,
        sql: Sql,
        writer: SQLiteWriter | PostgresWriter,
        asking: AsyncEngine,
        doubtful: set[lost_commit.Session],
    ) -> None:
        self._sql, self._writer = sql, writer
        self._asking, self._doubtful = asking, doubtful
        # By the monotonic clock: when a commit failed, and none has succeeded since.
        self._failed_at = -math.inf

    async def write(self, batch: Mapping[str, Rows]) -> None:
        """Execute each statement for its rows, in one transaction; raise `DatabaseUnavailable`."""
        try:
            await self._write(batch)
        except DatabaseUnavailable:
            self._failed_at = time.monotonic()
            raise
        self._failed_at = -math.inf

    def has_failed(self, seconds: float) -> bool:
        """Tell whether the last `write` failed, no longer ago than so many seconds."""
        return time.monotonic() - self._failed_at < seconds

    async def has_happened(self, insert: str, rows: Rows) -> bool:
        """Tell whether an insert was committed; if not, it never will be.

        Raises `OutcomeUnknown`.
        """
        try:
            with translated():
                made = next(self._sql.for_rows(insert, rows))  # all of them are there, or none
                return await lost_commit.has_committed(self._asking, *made, self._doubtful)
        except DatabaseUnavailable as error:
            raise OutcomeUnknown(f"nobody can tell what became of a commit: {error}") from error

    async def close(self) -> None:
        """Close the writer's connection; a file's is closed by whoever opened it."""
        if isinstance(self._writer, PostgresWriter):
            await self._writer.close()

    async def _write(self, batch: Mapping[str, Rows]) -> None:
        """Write, and once more where the connection proves broken: the next one is new."""
        try:
            await self._write_once(batch)
        except OutcomeUnknown:
            inserts = [each for each in batch.items() if each[0].lstrip().startswith("INSERT")]
            witness = next((each for each in inserts if each[1]), None)
            if witness is None:
                raise
            if await self.has_happened(*witness):
                return
        except DatabaseUnavailable as error:
            if not is_cut_off(error):
                raise
        else:
            return
        await self._write_once(batch)

    async def _write_once(self, batch: Mapping[str, Rows]) -> None:
        with translated():
            await self._writer.write(self._sql.together(batch))
