"""The loop that runs stored tasks: accept, claim, settle, drain.

What a worker knows in memory is a hint; the rows are the truth.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from afterwards import heartbeat
from afterwards.backlog import Backlog
from afterwards.brokers import Engine
from afterwards.heartbeat import Heartbeat
from afterwards.loop import Loop
from afterwards.model import Attempt, Task
from afterwards.rate import Rate
from afterwards.refused import Refused
from afterwards.rows import row_of, store_arguments, task_of
from afterwards.settling import refuse, settle
from afterwards.store.database import Connection
from afterwards.store.failures import DatabaseUnavailable, OutcomeUnknown
from afterwards.store.tasks import LANES, Store
from afterwards.turns import Room
from afterwards.upkeep import Upkeep

log = logging.getLogger("tasks")

POLL_SECONDS = 0.5  # how late a retry, or another process's task, may be noticed
ANSWER_SECONDS = 1.0  # a task whose answer has not gone by then starts all the same
LOOP_SECONDS, RELEASE_SECONDS = (
    0.3,
    1.0,
)  # for a loop's last step, and for the last words to the database
MOST_COUNTED = (
    250_000  # waiting tasks, or twice MAX_QUEUED; to count millions costs more than it tells
)
UNCOUNTED = nullcontext()  # for tasks that have slots, as most have
COMMITTING = math.inf  # instead of the moment from which on a task waits for its answer to go


class Worker:
    """Accepts tasks into the database, and runs what is due there in the engine's free slots."""

    hand_off_after = 0.0  # seconds from the commit until a new task is due to be handed to a broker

    def __init__(self, store: Store, engine: Engine, *, max_queued: int, keep_days: float) -> None:
        self._store = store
        self._engine = engine
        self._rate = Rate()
        self._fleet_rate = (
            0.0  # how many tasks all workers settle a second, asked while too many wait
        )
        self._most_counted = max(MOST_COUNTED, 2 * max_queued)
        self._backlog = Backlog(max_queued, lambda: max(self._rate.per_second(), self._fleet_rate))
        self._refused = Refused(store)
        self._heartbeat = Heartbeat(store, held=self._held, cancel=self._cancel, found=self.look)
        self._upkeep = Upkeep(store, keep_days, self._heartbeat.is_known)
        self._counted: dict[str, Any] = {}  # in the database, at the last beat
        # They have a slot, and start when their answers have gone; with the moment of their commit,
        # if that is done.
        self._promised: dict[str, tuple[Task, float]] = {}
        self._promises = Counter[bool]()  # of each lane
        self._is_backlog = False  # the last claim could have taken more
        self._claiming = Loop(self.claim, POLL_SECONDS)
        self._beating = Loop(self._beat, heartbeat.BEAT_SECONDS)
        self._withdrawing = Loop(self._withdraw_refused, POLL_SECONDS)

    async def begin(self) -> None:
        """Make this worker known, and start to claim; where the database is away, as soon as it is back."""
        await self._beating.step()
        self._beating.begin()
        self._upkeep.begin()
        self._withdrawing.begin()

    def is_well(self) -> bool:
        """Tell whether the last beat reached the database, and what was committed since."""
        return self._beating.has_succeeded_within(
            heartbeat.DEAD_SECONDS
        ) and not self._store.is_refused(heartbeat.DEAD_SECONDS)

    def state(self) -> dict[str, Any]:
        """Tell how many tasks wait and run, for how long the oldest has been due (s), and how many settle a second.

        What only the database knows is as of the last beat: whoever asks waits for nothing.
        """
        return {
            **self._counted,
            "running": self._engine.load()["running"],
            "rate": round(self._rate.per_second(), 1),
        }

    # --- a request's tasks ---

    async def accept(self, tasks: Sequence[Task]) -> None:
        """Store the tasks in one commit.

        Raises `Overloaded`, `ArgumentsRefused` or `DatabaseUnavailable`: then none is stored, or
        ever runs.
        """
        self._backlog.refuse_excess(sum(not _waits(task) for task in tasks))
        arguments = [store_arguments(task) for task in tasks]
        for task in tasks:
            self._promise(task)
        waiting = sum(not task.worker and not _waits(task) for task in tasks)
        with self._backlog.reserved(waiting) if waiting else UNCOUNTED:
            await self._commit(
                tasks, [self._row(task, text) for task, text in zip(tasks, arguments, strict=True)]
            )

    async def accept_within(self, connection: Connection, tasks: Sequence[Task]) -> None:
        """Store the tasks in the caller's transaction; otherwise as `accept`."""
        count = sum(not _waits(task) for task in tasks)
        self._backlog.refuse_excess(count)
        rows = [self._row(task, store_arguments(task)) for task in tasks]
        with self._backlog.reserved(count):
            await self._store.enqueue_within(connection, rows)

    def start(self, tasks: Sequence[Task]) -> None:
        """Start those tasks that have a slot, and look for one for the others: their answer has gone."""
        for task in tasks:
            if self._keep_promise(task.id):
                self._engine.start([[task]], self._settle)
            else:
                self.look()

    def look(self) -> None:
        """Look for tasks at once: somebody knows of one."""
        self._claiming.wake()

    async def _commit(self, tasks: Sequence[Task], rows: list[dict[str, Any]]) -> None:
        try:
            await self._store.enqueue(rows)
        except BaseException as error:
            for task in tasks:
                self._keep_promise(task.id)
            if isinstance(error, OutcomeUnknown):  # what is withdrawn was never done
                self._refused.add(error, rows)
                raise DatabaseUnavailable(str(error)) from error
            if isinstance(error, asyncio.CancelledError):
                after = asyncio.ensure_future(
                    self._store.enqueue([])
                )  # done when that which was cut off is
                after.add_done_callback(
                    lambda after: self._refused.add(after.exception() or after, rows)
                )
            raise
        now = time.monotonic()
        for task in tasks:
            if task.id in self._promised:
                self._promised[task.id] = task, now

    async def _withdraw_refused(self) -> None:
        await self._refused.withdraw(self._heartbeat.identity)

    def _row(self, task: Task, arguments: str) -> dict[str, Any]:
        return row_of(task, arguments, self.hand_off_after)

    def _promise(self, task: Task) -> None:
        lane = not task.is_async
        if not _waits(task) and self._claiming.is_running() and self._free(lane) > 0:
            task.worker = self._heartbeat.identity
            self._promised[task.id] = task, COMMITTING
            self._promises[lane] += 1

    def _keep_promise(self, id: str) -> bool:
        task, _ = self._promised.pop(id, (None, 0.0))
        if task is None:
            return False
        self._promises[not task.is_async] -= 1
        return True

    def _free(self, lane: bool) -> int:
        if not self._heartbeat.vouches_for(self._heartbeat.identity):
            return 0
        return self._engine.free(in_thread=lane) - self._promises[lane]

    # --- claim and settle ---

    async def claim(self) -> bool:
        """Start what is due, as far as there are slots; tell whether there may be more."""
        self._is_backlog = False
        claimer = self._heartbeat.identity
        for lane in LANES:
            free = {**self._engine.free_for_suspects(), Room.SLOTS: self._free(lane)}
            rows: Sequence[Any] = []
            if any(free.values()) and self._heartbeat.vouches_for(claimer):
                rows = await self._store.claim(claimer, in_thread=lane, free=free)
            if not self._heartbeat.vouches_for(claimer):
                return False
            self._backlog.claimed(len(rows))
            self._is_backlog |= len(rows) >= free[Room.SLOTS]
            # The same attempt runs here already where others thought this worker dead, and it has
            # not heard of that.
            running = self._engine.stored() if rows else {}
            fresh = [
                row
                for row in rows
                if row.id not in self._refused.ids and running.get(row.id) != row.attempt
            ]
            unfit = [(row, error) for row in fresh if (error := self._begin_attempt(row))]
            for row, error in unfit:
                await refuse(self._store, row, error)
        return self._is_backlog

    def _begin_attempt(self, row: Any) -> Exception | None:
        """Start what was claimed; return why that cannot be."""
        try:
            task = task_of(row)
        except Exception as error:  # a type of an argument may raise anything
            return error
        self._engine.start([[task]], self._settle)
        return None

    async def _settle(self, attempt: Attempt) -> None:
        if await settle(self._store, attempt):
            self._rate.count()
        if self._is_backlog or attempt.task.is_followed or attempt.task.crashes:
            self.look()

    # --- heartbeat ---

    async def _beat(self) -> None:
        await self._heartbeat.beat()
        self._claiming.begin()
        # A response that broke off before its background ran has left its tasks behind.
        self._start_promised(time.monotonic() - ANSWER_SECONDS)
        await self._backlog.recount(lambda: self._store.count_due(self._most_counted))
        self._fleet_rate = await self._store.settle_rate() if self._backlog.is_full() else 0.0
        self._counted = await self._count()

    async def _count(self) -> dict[str, Any]:
        oldest = await self._store.oldest_waiting()
        return {"queued": self._backlog.waiting(), "oldest_waiting": round(oldest, 3)}

    def _held(self) -> set[str]:
        return {*self._engine.stored(), *self._promised, *self._refused.ids}

    def _cancel(self, id: str) -> None:
        self._keep_promise(id)
        self._engine.cancel(id)

    def _start_promised(self, before: float) -> None:
        self.start(
            [task for task, committed_at in list(self._promised.values()) if committed_at < before]
        )

    # --- the end ---

    async def drain(self, seconds: float) -> None:
        """Claim no more, give what runs so many seconds, and give the rest back to be run elsewhere at once."""
        if not self._beating.is_running():
            return
        await self._upkeep.end()
        await self._claiming.end(
            LOOP_SECONDS
        )  # what it claims at this moment is to be drained as well
        self._start_promised(COMMITTING)
        await self._engine.drain(seconds, tell_of_cut_off)
        await self._beating.end(LOOP_SECONDS)  # not before: a worker that drains is alive
        self._heartbeat.end()
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._store.close()
                await self._withdrawing.end(0)
                await self._withdraw_refused()
                await self._store.release(self._heartbeat.identity)
        except (DatabaseUnavailable, TimeoutError):
            log.warning(
                "the database is away; others will rescue within %g s what this worker still held",
                heartbeat.DEAD_SECONDS,
            )


def _waits(task: Task) -> bool:
    return task.run_at is not None or bool(task.follows)


def tell_of_cut_off(task: Task) -> None:
    fate = "given back, to be run again" if task.stored else "lost, because it lived in memory only"
    log.warning("the shutdown cuts off %s %s; it is %s", task.name, task.id, fate)
