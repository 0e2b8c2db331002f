"""The tasks in the database: enqueue, claim, settle, publish, count.

A settle is fenced by worker and attempt: what a worker that was thought dead writes late changes
nothing.
"""

from collections.abc import Awaitable, Callable, Collection, Sequence
from functools import partial
from typing import Any

from sqlalchemy.ext.asyncio import AsyncConnection, AsyncSession

from afterwards.store import statements
from afterwards.store.database import Connection, Database
from afterwards.store.fleet import ForWorkers
from afterwards.store.given import NewRow, PoisonRow, SettledRow
from afterwards.store.group_claim import GroupClaim
from afterwards.store.group_commit import GroupCommit
from afterwards.store.people import ForPeople
from afterwards.store.sql import MICROSECONDS, listed
from afterwards.store.steps import in_steps
from afterwards.turns import Free, Queue, Shares, Turns

LANES = (False, True)  # what runs on the event loop, and plain functions, which run in threads
SETTLE_PATIENCE = 0.002  # seconds; nobody waits for a settle, and what comes shares its commit
RATE_SECONDS = 10
PUBLISH_AGAIN_SECONDS = 30.0  # a task that was published and not claimed by then is published again


class Store(ForPeople, ForWorkers):
    """The tasks of one database; its writes raise `DatabaseUnavailable` where that is away."""

    def __init__(self, database: Database) -> None:
        super().__init__(database)
        self.seal = database.seal
        self._commits = GroupCommit(database)
        self._claims = GroupClaim(partial(database.returned, statements.CLAIM_GIVEN))
        self._turns = Turns()

    def is_refused(self, seconds: float) -> bool:
        """Tell whether the last enqueues or settles were refused, no longer ago than that."""
        return self._database.is_refusing(seconds)

    # --- enqueue ---

    def enqueue(self, rows: Sequence[NewRow]) -> Awaitable[None]:
        """Insert the rows in one commit, along with what others enqueue at the same moment."""
        return self._commits.write(statements.ENQUEUE, rows)

    async def enqueue_within(
        self, within: AsyncConnection | AsyncSession, rows: Sequence[NewRow]
    ) -> None:
        """Insert the rows in the caller's transaction, on a connection of whatever engine.

        Raises `WrongConnection` where that is one to another database.
        """
        await self._database.insert(within, statements.ENQUEUE, rows)

    async def withdraw(self, rows: Sequence[NewRow], worker: str) -> Sequence[str]:
        """Delete the rows of a commit whose outcome was not known, and see that they never come.

        Returns the ids of those that remain, because another than this worker has begun them.
        """
        if not await self._database.has_committed(statements.ENQUEUE, rows):
            return []
        own = {worker, *(row.worker for row in rows if row.worker)}
        values = {"ids": listed(row.id for row in rows), "own": listed(own)}
        await self._database.change(statements.WITHDRAW, values)
        return [row.id for row in await self._given(statements.STORED, [row.id for row in rows])]

    # --- claim ---

    async def claim(self, worker: str, *, in_thread: bool, free: Free) -> Sequence[Any]:
        """Take what is due in one lane, as far as there is room; no other worker gets the same.

        The names that wait take turns; of one name the longest due come first.
        """
        rows: list[Any] = []
        sql = self._database.sql
        async with self._database.transaction() as connection:
            await connection.execute(sql(statements.FOLLOW))
            found = await connection.execute(sql(statements.QUEUES), {"lane": in_thread})
            queues, shares = self._turns.order(Queue(*each) for each in found), Shares(free)
            while queues:  # another round shares what some queues have left of their shares
                shares.begin(queues)
                queues = [
                    each
                    for each in queues
                    if await self._claim_share(connection, worker, each, shares, rows)
                ]
        return rows

    async def _claim_share(
        self, connection: Connection, worker: str, queue: Queue, shares: Shares, rows: list[Any]
    ) -> bool:
        """Add to the rows what the queue may have; tell whether it may want more."""
        taken: Sequence[Any] = []
        if (most := shares.of(queue)) > 0:
            self._turns.serve(queue)
            whose = {"lane": queue.in_thread, "crashed": queue.crashes, "named": queue.name}
            values = {**whose, "claimer": worker, "most": most}
            claim = self._database.sql(statements.CLAIM)
            taken = (await connection.execute(claim, values)).all()
        shares.take(queue, len(taken))
        rows.extend(taken)
        return 0 < most == len(taken)

    def claim_one(self, worker: str, id: str) -> Awaitable[Any]:
        """Take this task, if it waits and is due; None if not, whatever the reason.

        It is claimed in one statement with what others claim at the same moment.
        """
        return self._claims.claim(worker, id)

    # --- settle ---

    def settle(self, row: SettledRow | PoisonRow, settled: Callable[[], None]) -> None:
        """Record how the attempt ended, unless it is not the worker's any more; then call back.

        It is recorded however long the database is away.
        """
        statement = statements.SETTLE if isinstance(row, SettledRow) else statements.POISON
        self._commits.record(statement, row, settled, patience=SETTLE_PATIENCE)

    # --- publish ---

    async def due_to_publish(self, most: int) -> Sequence[Any]:
        """Mark at most so many waiting tasks as published now; give `id`, `name` and `carrier`."""
        values = {"most": most, "patience_us": int(PUBLISH_AGAIN_SECONDS * MICROSECONDS)}
        sql = self._database.sql
        async with self._database.transaction() as connection:
            await connection.execute(sql(statements.FOLLOW))
            return (await connection.execute(sql(statements.PUBLISH), values)).all()

    async def publish_soon(self) -> int:
        """Make due to be published what a broker should know and does not; return how many."""
        values = {"patience_us": int(PUBLISH_AGAIN_SECONDS * MICROSECONDS)}
        return await self._database.change(statements.PUBLISH_SOON, values)

    async def not_published(self, ids: Collection[str]) -> None:
        """Make these tasks due to be published at once, unless somebody has claimed them."""
        await self._database.change(statements.NOT_PUBLISHED, {"ids": listed(ids)})

    # --- keep small, and count ---

    async def stored(self, ids: Collection[str]) -> set[str]:
        """Tell which of these tasks are there."""
        return {row.id for row in await self._given(statements.STORED, ids)}

    async def prune(self, pruning: str, days: float) -> int:
        """Delete in steps, by a pruning statement, what is so many days old; return how much."""
        values = {"age_us": int(days * 86_400 * MICROSECONDS), "since": 0}

        async def step(most: int) -> tuple[int, float]:
            moments, seconds = await self._database.write_timed(pruning, {**values, "most": most})
            values["since"] = max(moments, default=0)
            return len(moments), seconds

        return await in_steps(step)

    async def shrink(self) -> None:
        """Give room back that the database's files take and do not need."""
        await self._database.shrink()

    async def count_due(self, most: int) -> int:
        """Count the tasks that wait for a free slot, but not beyond `most`: millions cost too much.

        Those that are for later, or wait for their next attempt, keep nobody waiting.
        """
        count = 0
        for lane in LANES:
            values = {"lane": lane, "most": most - count}
            [(found,)] = await self._database.all(statements.COUNT_DUE, values)
            count += found
        return count

    async def settle_rate(self) -> float:
        """Return how many tasks a second have ended well in the last ten, whoever ran them."""
        values = {"lately_us": RATE_SECONDS * MICROSECONDS}
        [(count,)] = await self._database.all(statements.SETTLED_LATELY, values)
        return float(count / RATE_SECONDS)

    async def count_running(self) -> int:
        """Count the tasks that run, whoever runs them."""
        [(count,)] = await self._database.all(statements.COUNT_RUNNING)
        return int(count)

    async def count_dead(self, most: int) -> int:
        """Count the dead tasks, but not beyond `most`."""
        [(count,)] = await self._database.all(statements.COUNT_DEAD, {"most": most})
        return int(count)

    async def oldest_waiting(self) -> float:
        """Return the seconds for which the longest due task has been waiting; 0 if none is due."""
        waited = [
            (await self._database.all(statements.WAITED, {"lane": lane}))[0][0] for lane in LANES
        ]
        return float(max(0, *waited) / MICROSECONDS)

    async def close(self) -> None:
        """Write what is still to be written."""
        await self._commits.close()
