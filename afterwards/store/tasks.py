"""The tasks in the database: enqueue, claim, settle, rescue, and what a person does to them.

A settle is fenced by worker and attempt: what a worker that was thought dead writes late changes
nothing.
"""

from collections.abc import Awaitable, Collection, Mapping, Sequence
from typing import Any

from sqlalchemy import CursorResult, Executable, Row, case, delete, func, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from afterwards.model import WAITING, State
from afterwards.retries import Settlement
from afterwards.store import statements
from afterwards.store.database import Connection, Database
from afterwards.store.group_commit import GroupCommit
from afterwards.store.many_rows import parameters
from afterwards.store.steps import in_steps
from afterwards.store.tables import (
    IS_PRUNED,
    IS_RUNNING,
    IS_WAITING,
    MICROSECONDS,
    clock,
    tasks,
    workers,
)
from afterwards.turns import ALONE_FROM, Free, Queue, Shares, Turns
from afterwards.waiting import ReadTogether, Waiters

LANES = (False, True)  # what runs on the event loop, and plain functions, which run in threads
SETTLE_PATIENCE = 0.002  # seconds; the enqueue that takes a settle along has a client who waits
RATE_SECONDS = 10
HAND_OFF_SECONDS = 30.0  # a task that was handed off and not claimed by then is handed off again
LISTED_TEXT = 1024  # characters of arguments and of a result that a list of tasks holds

# What a list of tasks holds of each; `arguments_length` and `result_length` are those of the whole.
LISTED = [
    *(column for column in tasks.c if column.name not in ("arguments", "result")),
    *(
        func.substr(column, 1, LISTED_TEXT).label(column.name)
        for column in (tasks.c.arguments, tasks.c.result)
    ),
    *(
        func.length(column).label(f"{column.name}_length")
        for column in (tasks.c.arguments, tasks.c.result)
    ),
]


class Store:
    """The tasks of one database; its writes raise `DatabaseUnavailable` where that is away.

    A settle waits up to `settle_patience` (s) for an enqueue; a process that enqueues nothing has
    no use for that.
    """

    def __init__(self, database: Database, *, settle_patience: float = SETTLE_PATIENCE) -> None:
        self._database = database
        self._settle_patience = settle_patience
        self._commits = GroupCommit(database)
        self._rows = ReadTogether(lambda ids: self._given(statements.ROWS, ids))
        self.waiters = Waiters(self._ended)
        self._turns = Turns()

    async def make_tables(self) -> None:
        """Make the tables, as far as they are missing."""
        await self._database.make_tables()

    def is_refused(self, seconds: float) -> bool:
        """Tell whether the database has refused the last enqueues or settles, no longer ago than so many seconds."""
        return self._database.is_refusing(seconds)

    def enqueue(self, rows: Sequence[dict[str, Any]]) -> Awaitable[None]:
        """Insert the rows in one commit, along with what others enqueue at the same moment."""
        return self._commits.write(statements.ENQUEUE, rows)

    async def enqueue_within(
        self, connection: AsyncConnection, rows: Sequence[dict[str, Any]]
    ) -> None:
        """Insert the rows in the caller's transaction."""
        await self._database.execute_for(connection, statements.ENQUEUE, rows)

    async def withdraw(self, rows: Sequence[dict[str, Any]], worker: str) -> Sequence[str]:
        """Delete the rows of a commit whose outcome was not known, and see to it that they do not come later.

        Returns the ids of those that remain, because another than this worker has begun them.
        """
        if not await self._database.has_committed(statements.ENQUEUE, rows):
            return []
        given, own = parameters(rows), [worker, *{row["worker"] for row in rows}]
        async with self._database.transaction() as connection:
            await connection.execute(statements.WITHDRAW, given | {"own": own})
            return (
                (await connection.execute(select(tasks.c.id).where(statements.GIVEN), given))
                .scalars()
                .all()
            )

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
                queues = [
                    each
                    for each in queues
                    if await self._claim_share(connection, worker, each, shares, rows)
                ]
        return rows

    async def _claim_share(
        self,
        connection: Connection,
        worker: str,
        queue: Queue,
        shares: Shares,
        rows: list[Row[Any]],
    ) -> bool:
        """Add to the rows what the queue may have; tell whether it may want more."""
        taken: Sequence[Row[Any]] = []
        if (most := shares.of(queue)) > 0:
            self._turns.serve(queue)
            values = {
                "claimer": worker,
                "lane": queue.in_thread,
                "crashed": queue.crashes,
                "named": queue.name,
            }
            taken = (await connection.execute(statements.CLAIM, {**values, "most": most})).all()
        shares.take(queue, len(taken))
        rows.extend(taken)
        return 0 < most == len(taken)

    async def claim_one(self, worker: str, id: str) -> Row[Any] | None:
        """Take this task, if it waits and is due; None if not, whatever the reason."""
        async with self._database.transaction() as connection:
            return (
                await connection.execute(statements.CLAIM_ONE, {"claimer": worker, "wanted": id})
            ).one_or_none()

    async def due_for_hand_off(self, most: int) -> Sequence[Row[Any]]:
        """Mark at most so many waiting tasks as handed off now, and give their `id`, `name` and `carrier`."""
        values = {"most": most, "patience_us": int(HAND_OFF_SECONDS * MICROSECONDS)}
        async with self._database.transaction() as connection:
            await connection.execute(statements.FOLLOW)
            return (await connection.execute(statements.HAND_OFF, values)).all()

    async def hand_off_soon(self) -> int:
        """Make due to be handed off whatever a broker should know and does not; return how many tasks."""
        return await self._execute(
            statements.HAND_OFF_SOON, {"patience_us": int(HAND_OFF_SECONDS * MICROSECONDS)}
        )

    async def was_not_handed_off(self, ids: Collection[str]) -> None:
        """Make these tasks due to be handed off at once, unless somebody has claimed them."""
        change = update(tasks).where(tasks.c.id.in_(ids), IS_WAITING)
        await self._execute(change.values(hand_off_at=clock()))

    def settle(
        self, id: str, worker: str, attempt: int, settlement: Settlement, result: str | None
    ) -> Awaitable[None]:
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

    async def settle_poison(
        self, id: str, worker: str, attempt: int, settlement: Settlement, crashes: int
    ) -> None:
        """Record that the task is dead of so many crashes, not of its attempts, unless it is not the worker's."""
        held = {"poison": id, "holder": worker, "number": attempt}
        why = {"kind": settlement.error_kind, "message": settlement.error_message}
        await self._execute(statements.POISON, {**held, **why, "crashed": crashes})

    async def register(self, worker: str) -> None:
        """Make the worker known, which it must be before it claims: others rescue what unknown workers run."""
        await self._execute(workers.insert().values(id=worker, beats=0))

    async def beat(self, worker: str) -> bool:
        """Tell that the worker lives; False if it was declared dead meanwhile."""
        return (
            await self._execute(
                update(workers).where(workers.c.id == worker).values(beats=workers.c.beats + 1)
            )
            > 0
        )

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
            update(tasks).where(tasks.c.id.in_(ids), *statements.HELD).values(statements.RELEASED),
            {"holder": worker},
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
        query = select(tasks.c.id).where(
            tasks.c.state == State.CANCELLED, recent, tasks.c.worker == worker
        )
        async with self._database.reading() as connection:
            return list((await connection.execute(query)).scalars())

    async def get(self, id: str) -> Row[Any] | None:
        """Give the task's row."""
        return await self._rows.row(id)

    async def page(
        self, *, state: str | None, name: str | None, limit: int, after: str | None
    ) -> Sequence[Row[Any]]:
        """List tasks, newest first: ids sort by time. Of long arguments and results only the beginning is there."""
        query = select(*LISTED).order_by(tasks.c.id.desc()).limit(limit)
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
        change = update(tasks).where(
            tasks.c.id == id, tasks.c.state.in_([State.DEAD, State.CANCELLED])
        )
        alone = case((tasks.c.crashes > ALONE_FROM, ALONE_FROM), else_=tasks.c.crashes)
        fresh = {
            "attempt": 0,
            "crashes": alone,
            "worker": None,
            "error_kind": None,
            "error_message": None,
        }
        values = {**fresh, "state": State.QUEUED, **statements.DUE_NOW, "finished_at": None}
        return await self._execute(change.values(values)) > 0

    async def prune(self, pruning: Executable, days: float) -> int:
        """Delete in steps, by one of the statements that prune, what is that many days old; return how much."""
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
        """Count the tasks that wait for a free slot, but not beyond `most`: to count millions costs more than it tells.

        Those that are for later, or wait for their next attempt, keep nobody waiting.
        """
        count = 0
        async with self._database.reading() as connection:
            for lane in LANES:
                values = {"lane": lane, "most": most - count}
                count += (await connection.execute(statements.COUNT_DUE, values)).scalar_one()
        return count

    async def settle_rate(self) -> float:
        """Give how many tasks a second have ended well in the last ten, whoever ran them."""
        lately = tasks.c.finished_at > clock() - RATE_SECONDS * MICROSECONDS
        count = select(func.count()).select_from(tasks).where(IS_PRUNED, lately)
        async with self._database.reading() as connection:
            return float((await connection.execute(count)).scalar_one() / RATE_SECONDS)

    async def count_running(self) -> int:
        """Count the tasks that run, whoever runs them."""
        async with self._database.reading() as connection:
            return (
                await connection.execute(select(func.count()).select_from(tasks).where(IS_RUNNING))
            ).scalar_one()

    async def oldest_waiting(self) -> float:
        """Give the seconds for which the longest due task has been waiting; 0 if none is due."""
        async with self._database.reading() as connection:
            waited = [
                (await connection.execute(statements.WAITED, {"lane": lane})).scalar_one()
                for lane in LANES
            ]
        return max(0, *waited) / MICROSECONDS

    async def close(self) -> None:
        """Write what is still to be written."""
        await self._commits.close()

    async def _ended(self, ids: Collection[str]) -> set[str]:
        return {row.id for row in await self._given(statements.ENDED, ids)}

    async def _given(self, statement: Executable, ids: Collection[str]) -> Sequence[Row[Any]]:
        async with self._database.reading() as connection:
            return (
                await connection.execute(statement, parameters([{"id": id} for id in ids]))
            ).all()

    async def _execute(self, statement: Executable, values: Mapping[str, Any] | None = None) -> int:
        async with self._database.transaction() as connection:
            result = await connection.execute(statement, values)
            assert isinstance(result, CursorResult)
            return result.rowcount
