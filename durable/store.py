"""The tasks in the database: enqueue, claim, settle, rescue, and what a person does to them.

A settle is fenced by worker and attempt: what a worker that was thought dead writes late changes nothing.
"""

from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import CursorResult, Executable, Row, case, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from durable import idempotency, statements
from durable.model import WAITING, State
from durable.retries import Settlement
from durable.turns import ALONE_FROM, Free, Queue, Shares, Turns
from storage.database import Connection, Database
from storage.group_commit import GroupCommit
from storage.many_rows import parameters
from storage.tasks import IS_PRUNED, IS_RUNNING, IS_WAITING, MICROSECONDS, clock, tasks, workers

LANES = (False, True)  # what runs on the event loop, and plain functions, which run in threads
SETTLE_PATIENCE = 0.002  # seconds; the enqueue that takes a settle along has a client who waits
HAND_OFF_SECONDS = 30.0  # a task that was handed off and not claimed by then is handed off again


class Store:
    """The tasks of one database; its writes raise `DatabaseUnavailable` where that is away.

    A settle waits up to `settle_patience` (s) for an enqueue; a process that enqueues nothing has no use for that.
    """

    def __init__(self, database: Database, *, settle_patience: float = SETTLE_PATIENCE) -> None:
        self._database = database
        self._settle_patience = settle_patience
        self._commits = GroupCommit(database)
        self._turns = Turns()

    def enqueue(self, rows: Sequence[dict[str, Any]]) -> Awaitable[None]:
        """Insert the rows in one commit, along with what others enqueue at the same moment."""
        return self._commits.write(statements.ENQUEUE, rows)

    async def enqueue_within(self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]) -> None:
        """Insert the rows in the caller's transaction."""
        await connection.execute(statements.ENQUEUE, parameters(rows))

    async def claim(self, worker: str, *, in_thread: bool, free: Free) -> Sequence[Row[Any]]:
        """Take what is due in one lane, as far as there is room for it; no other worker gets the same.

        The names that wait take turns; of one name the longest due come first.
        """
        rows: list[Row[Any]] = []
        async with self._database.transaction() as connection:
            await connection.execute(statements.FOLLOW)
            found = await connection.execute(statements.QUEUES, {"lane": in_thread})
            queues, shares = self._turns.order(Queue(*each) for each in found), Shares(free)
            while queues:  # another round shares what some queues have left of their shares
                shares.begin(queues)
                queues = [each for each in queues if await self._claim_share(connection, worker, each, shares, rows)]
        return rows

    async def _claim_share(
        self, connection: Connection, worker: str, queue: Queue, shares: Shares, rows: list[Row[Any]]
    ) -> bool:
        """Add to the rows what the queue may have; tell whether it may want more."""
        taken: Sequence[Row[Any]] = []
        if (most := shares.of(queue)) > 0:
            self._turns.serve(queue)
            values = {"claimer": worker, "lane": queue.in_thread, "crashed": queue.crashes, "named": queue.name}
            taken = (await connection.execute(statements.CLAIM, {**values, "most": most})).all()
        shares.take(queue, len(taken))
        rows.extend(taken)
        return 0 < most == len(taken)

    async def claim_one(self, worker: str, id: str) -> Row[Any] | None:
        """Take this task, if it waits and is due; None if not, whatever the reason."""
        async with self._database.transaction() as connection:
            return (await connection.execute(statements.CLAIM_ONE, {"claimer": worker, "wanted": id})).one_or_none()

    async def due_for_hand_off(self, most: int) -> Sequence[Row[Any]]:
        """Mark at most so many waiting tasks as handed off now, and give their `id`, `name` and `carrier`."""
        values = {"most": most, "patience_us": int(HAND_OFF_SECONDS * MICROSECONDS)}
        async with self._database.transaction() as connection:
            await connection.execute(statements.FOLLOW)
            return (await connection.execute(statements.HAND_OFF, values)).all()

    async def was_not_handed_off(self, ids: Collection[str]) -> None:
        """Make these tasks due to be handed off at once, unless somebody has claimed them."""
        change = update(tasks).where(tasks.c.id.in_(ids), IS_WAITING)
        await self._execute(change.values(hand_off_at=clock()))

    def settle(self, id: str, worker: str, attempt: int, settlement: Settlement, result: str | None) -> Awaitable[None]:
        """Record how the attempt ended, unless it is not the worker's any more."""
        row = {
            "id": id,
            "worker": worker,
            "attempt": attempt,
            "state": settlement.state,
            "delay_us": int(settlement.delay * MICROSECONDS),
            "result": result,
            "error_kind": settlement.error_kind,
            "error_message": settlement.error_message,
        }
        return self._commits.write(statements.SETTLE, [row], patience=self._settle_patience)

    async def settle_poison(self, id: str, worker: str, attempt: int, settlement: Settlement, crashes: int) -> None:
        """Record that the task is dead of so many crashes, not of its attempts, unless it is not the worker's."""
        held = {"poison": id, "holder": worker, "number": attempt}
        why = {"kind": settlement.error_kind, "message": settlement.error_message}
        await self._execute(statements.POISON, {**held, **why, "crashed": crashes})

    async def register(self, worker: str) -> None:
        """Make the worker known, which it must be before it claims: others rescue what unknown workers run."""
        await self._execute(workers.insert().values(id=worker, beats=0))

    async def beat(self, worker: str) -> bool:
        """Tell that the worker lives; False if it was declared dead meanwhile."""
        return await self._execute(update(workers).where(workers.c.id == worker).values(beats=workers.c.beats + 1)) > 0

    async def beats(self) -> dict[str, int]:
        """Give every worker's count of beats."""
        async with self._database.reading() as connection:
            return {row.id: row.beats for row in await connection.execute(select(workers))}

    async def bury(self, dead: Sequence[str]) -> None:
        """Forget workers; what they run is to be rescued."""
        await self._execute(delete(workers).where(workers.c.id.in_(dead)))

    async def rescue(self) -> Sequence[Row[Any]]:
        """Give back what workers run that are not known any more; return those rows as they are now."""
        async with self._database.transaction() as connection:
            return (await connection.execute(statements.RESCUE)).all()

    async def release(self, worker: str) -> int:
        """Give back all that the worker still runs, with the attempt not counted, and forget the worker."""
        async with self._database.transaction() as connection:
            released = (await connection.execute(statements.RELEASE, {"holder": worker})).rowcount
            await connection.execute(delete(workers).where(workers.c.id == worker))
            return released

    async def release_family(self, family: str) -> None:
        """Release every worker whose identity begins so."""
        for id in [id for id in await self.beats() if id.startswith(family)]:
            await self.release(id)

    async def held_by(self, worker: str) -> set[str]:
        """List the tasks that run under the worker's claim, as the database sees it."""
        query = select(tasks.c.id).where(IS_RUNNING, tasks.c.worker == worker)
        async with self._database.reading() as connection:
            return set((await connection.execute(query)).scalars())

    async def give_back(self, worker: str, ids: Collection[str]) -> None:
        """Queue tasks again that the worker holds without knowing of them, with the attempt not counted."""
        await self._execute(
            update(tasks).where(tasks.c.id.in_(ids), *statements.HELD).values(statements.RELEASED), {"holder": worker}
        )

    async def now(self) -> int:
        """Ask the database for its clock, in microseconds."""
        async with self._database.reading() as connection:
            return (await connection.execute(select(clock()))).scalar_one()

    async def pull_back(self) -> int:
        """Make due what was queued before the clock was set back, when it would have been; return how many."""
        return await self._execute(statements.PULL_BACK)

    async def cancelled_under(self, worker: str) -> list[str]:
        """List the tasks that a person cancelled while the worker ran them, in the last minute."""
        recent = tasks.c.finished_at > clock() - 60 * MICROSECONDS
        query = select(tasks.c.id).where(tasks.c.state == State.CANCELLED, recent, tasks.c.worker == worker)
        async with self._database.reading() as connection:
            return list((await connection.execute(query)).scalars())

    async def get(self, id: str) -> Row[Any] | None:
        """Give the task's row."""
        async with self._database.reading() as connection:
            return (await connection.execute(select(tasks).where(tasks.c.id == id))).one_or_none()

    async def page(self, *, state: str | None, name: str | None, limit: int, after: str | None) -> Sequence[Row[Any]]:
        """List tasks, newest first: ids sort by time."""
        query = select(tasks).order_by(tasks.c.id.desc()).limit(limit)
        for column, value in ((tasks.c.state, state), (tasks.c.name, name)):
            query = query.where(column == value) if value else query
        query = query.where(tasks.c.id < after) if after else query
        async with self._database.reading() as connection:
            return (await connection.execute(query)).all()

    async def cancel(self, id: str) -> bool:
        """Cancel the task; False if it has settled, or is not there."""
        open_states = [*WAITING, State.RUNNING]
        change = update(tasks).where(tasks.c.id == id, tasks.c.state.in_(open_states))
        return await self._execute(change.values(state=State.CANCELLED, finished_at=clock())) > 0

    async def retry(self, id: str) -> bool:
        """Queue a dead or cancelled task anew, with all its attempts; False if it is neither.

        One that ended its process runs alone again.
        """
        change = update(tasks).where(tasks.c.id == id, tasks.c.state.in_([State.DEAD, State.CANCELLED]))
        alone = case((tasks.c.crashes > ALONE_FROM, ALONE_FROM), else_=tasks.c.crashes)
        fresh = {"attempt": 0, "crashes": alone, "worker": None, "error_kind": None, "error_message": None}
        values = {**fresh, "state": State.QUEUED, **statements.DUE_NOW, "finished_at": None}
        return await self._execute(change.values(values)) > 0

    async def prune(self, days: float, most: int = 5000) -> int:
        """Delete at most so many of the tasks that succeeded or were cancelled so many days ago; return how many."""
        old = tasks.c.finished_at < clock() - int(days * 86_400 * MICROSECONDS)
        chosen = select(tasks.c.id).where(IS_PRUNED, old).limit(most)
        async with self._database.transaction() as connection:
            await idempotency.prune(connection, int(days * 86_400 * MICROSECONDS))
        return await self._execute(delete(tasks).where(tasks.c.id.in_(chosen)))

    async def count_due(self, most: int) -> int:
        """Count the tasks that wait for a free slot, but not beyond `most`: to count millions costs more than it tells.

        Those that are for later, or wait for their next attempt, keep nobody waiting.
        """
        count = 0
        async with self._database.reading() as connection:
            for lane in LANES:
                values = {"lane": lane, "most": most - count}
                count += (await connection.execute(statements.COUNT_DUE, values)).scalar_one()
        return count

    async def count_running(self) -> int:
        """Count the tasks that run, whoever runs them."""
        async with self._database.reading() as connection:
            return (await connection.execute(select(func.count()).select_from(tasks).where(IS_RUNNING))).scalar_one()

    async def oldest_waiting(self) -> float:
        """Give the seconds for which the longest due task has been waiting; 0 if none is due."""
        async with self._database.reading() as connection:
            waited = [(await connection.execute(statements.WAITED, {"lane": lane})).scalar_one() for lane in LANES]
        return max(0, *waited) / MICROSECONDS

    async def close(self) -> None:
        """Write what is still to be written."""
        await self._commits.close()

    async def _execute(self, statement: Executable, values: Mapping[str, Any] | None = None) -> int:
        async with self._database.transaction() as connection:
            result = await connection.execute(statement, values)
            assert isinstance(result, CursorResult)
            return result.rowcount
