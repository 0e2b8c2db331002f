"""What a person asks of the tasks, and does to one or to all that they mean."""

import time
from collections.abc import Collection, Sequence
from typing import Any

from afterwards.store import changes, statements
from afterwards.store.changes import Change
from afterwards.store.database import Connection, Database
from afterwards.store.filter import Filter
from afterwards.store.sql import listed
from afterwards.store.steps import in_steps
from afterwards.turns import ALONE_FROM
from afterwards.waiting import ReadTogether, Waiters

CANCEL = """
UPDATE {tasks} SET state = 'cancelled', finished_at = {now}
WHERE id IN ({each:ids}) AND state || '' {may:cancel} RETURNING id
"""
# One that ended its process runs alone again.
RETRY = f"""
UPDATE {{tasks}} SET state = 'queued', attempt = 0, worker = NULL, error_kind = NULL,
    error_message = NULL, finished_at = NULL, run_at = {{now}}, publish_at = {{now}},
    rescued_from = NULL, due_at = NULL,
    crashes = CASE WHEN crashes > {ALONE_FROM} THEN {ALONE_FROM} ELSE crashes END
WHERE id IN ({{each:ids}}) AND state || '' {{may:retry}} RETURNING id
"""
DELETE = """
DELETE FROM {tasks} WHERE id IN ({each:ids}) AND state || '' {may:delete} RETURNING id
"""

# Of long texts only the beginning is there.
PAGE = """
SELECT id, name, carrier, in_thread, state, attempt, max_attempts, crashes, worker, created_at,
    run_at, publish_at, follows, started_at, finished_at, error_kind, error_message,
    substr(arguments, 1, :shown) AS arguments, length(arguments) AS arguments_length,
    substr(result, 1, :shown) AS result, length(result) AS result_length
FROM {tasks} WHERE """
NEWEST_FIRST = " ORDER BY id DESC LIMIT :most"
COUNT = "SELECT count(*) FROM {tasks} WHERE "
MATCHING = "SELECT id FROM {tasks} WHERE id > :since AND id <= :last AND "
NEWEST = "SELECT max(id) FROM {tasks}"
OLDEST_FIRST = " ORDER BY id LIMIT :most"

LISTED_TEXT = 1024  # characters of arguments and of a result that a list of tasks holds


class ForPeople:
    """The part of a `Store` that the API and the command line use."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._rows = ReadTogether(lambda ids: self._given(statements.ROWS, ids))
        self.waiters = Waiters(self._ended)

    async def schema_version(self) -> int | None:
        """Return the version of the tables; None where there are none yet."""
        return await self._database.schema_version()

    async def get(self, id: str) -> Any:
        """Return the task's row; None if there is none."""
        return await self._rows.row(id)

    async def page(
        self, filter: Filter, *, limit: int = 100, after: str | None = None
    ) -> Sequence[Any]:
        """List tasks, newest first: ids sort by time; `after` is the last one of the page before.

        Of long arguments and results only the beginning is there, and `arguments_length` and
        `result_length` are those of the whole.
        """
        condition, values = filter.condition()
        values = {**values, "shown": LISTED_TEXT, "most": limit}
        if after is not None:
            condition, values = f"{condition} AND id < :after", values | {"after": after}
        query = PAGE + condition + NEWEST_FIRST
        return await self._database.all(query, values)

    async def cancel(self, id: str, change: Change | None = None) -> bool:
        """Cancel the task; False if it has settled, or is not there.

        The change is written down in the same transaction, here as below.
        """
        return bool((await self._write(CANCEL, [id], change))[0])

    async def retry(self, id: str, change: Change | None = None) -> bool:
        """Queue a dead or cancelled task anew, with all its attempts; False if it is neither."""
        return bool((await self._write(RETRY, [id], change))[0])

    async def delete(self, id: str, change: Change | None = None) -> bool:
        """Delete the task; False if it has not settled, or is not there."""
        return bool((await self._write(DELETE, [id], change))[0])

    async def count(self, filter: Filter, verb: str) -> int:
        """Count the tasks that match, and that the verb may move on."""
        condition, values = filter.condition()
        query = f"{COUNT}{condition} AND state {{may:{verb}}}"
        [(count,)] = await self._database.all(query, values)
        return int(count)

    async def cancel_all(self, filter: Filter, change: Change | None = None) -> int:
        """Cancel what has not settled, in short steps; return how many it were.

        Each step writes down its own part of the change.
        """
        return await self._change_all("cancel", CANCEL, filter, change)

    async def retry_all(self, filter: Filter, change: Change | None = None) -> int:
        """Queue dead and cancelled tasks anew, in short steps; return how many it were."""
        return await self._change_all("retry", RETRY, filter, change)

    async def delete_all(self, filter: Filter, change: Change | None = None) -> int:
        """Delete what has settled, in short steps; return how many it were."""
        return await self._change_all("delete", DELETE, filter, change)

    async def record(
        self, change: Change, which: Collection[str], *, within: Connection | None = None
    ) -> None:
        """Write down a change of something else than tasks, in the caller's transaction if any."""
        if within is not None:
            await changes.record(self._database, within, change, which)
            return
        async with self._database.transaction() as connection:
            await changes.record(self._database, connection, change, which)

    async def changes(self, *, limit: int = 100, after: str | None = None) -> Sequence[Any]:
        """List what operators changed, the newest first."""
        return await changes.page(self._database, limit=limit, after=after)

    async def _change_all(
        self, verb: str, statement: str, filter: Filter, change: Change | None
    ) -> int:
        condition, values = filter.condition()
        query = f"{MATCHING}{condition} AND state {{may:{verb}}}"
        query += OLDEST_FIRST
        # What is made meanwhile is not meant, so that this comes to an end.
        [(last,)] = await self._database.all(NEWEST)
        values = {**values, "last": last or ""}
        since, changed = "", 0

        async def step(most: int) -> tuple[int, float]:
            # Looked for without a lock: of a million rows a few may match.
            nonlocal since, changed
            found = await self._database.all(query, {**values, "since": since, "most": most})
            ids = [row.id for row in found]
            if not ids:
                return 0, 0.0
            done, seconds = await self._write(statement, ids, change)
            changed += len(done)
            since = ids[-1]
            return len(ids), seconds

        await in_steps(step)
        return changed

    async def _write(
        self, statement: str, ids: Collection[str], change: Change | None
    ) -> tuple[Sequence[str], float]:
        values = {"ids": listed(ids)}
        if change is None:
            return await self._database.write_timed(statement, values)
        async with self._database.transaction() as connection:
            began = time.monotonic()
            made = self._database.sql(statement)
            done = (await connection.execute(made, values)).scalars().all()
            if done:
                await changes.record(self._database, connection, change, done)
        return done, time.monotonic() - began

    async def _ended(self, ids: Collection[str]) -> set[str]:
        return {row.id for row in await self._given(statements.ENDED, ids)}

    async def _given(self, statement: str, ids: Collection[str]) -> Sequence[Any]:
        return await self._database.all(statement, {"ids": listed(ids)})
