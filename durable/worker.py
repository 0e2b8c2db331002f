"""The loop that runs stored tasks: accept, claim, settle, drain.

What a worker knows in memory is a hint; the rows are the truth.
"""

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import Sequence
from typing import Any

from durable import heartbeat
from durable.engines import Engine
from durable.errors import Overloaded
from durable.heartbeat import Heartbeat
from durable.loop import Loop
from durable.model import Attempt, Task
from durable.rate import Rate
from durable.rows import row_of, store_arguments, task_of
from durable.settling import refuse, settle
from durable.store import LANES, Store
from durable.turns import Room
from storage.database import Connection, DatabaseUnavailable

log = logging.getLogger("tasks")

POLL_SECONDS = 0.5  # how late a retry, or another process's task, may be noticed
ANSWER_SECONDS = 1.0  # a task whose answer has not gone by then starts all the same
LOOP_SECONDS, RELEASE_SECONDS = 0.3, 1.0  # for a loop's last step, and for the last words to the database
RETRY_AFTER_SECONDS = 30  # what a client is told when nothing has settled lately


class Worker:
    """Accepts tasks into the database, and runs what is due there in the engine's free slots."""

    hand_off_after = 0.0  # seconds from the commit until a new task is due to be handed to a broker

    def __init__(self, store: Store, engine: Engine, *, max_queued: int, keep_days: float) -> None:
        self._store = store
        self._engine = engine
        self._max_queued = max_queued
        self._heartbeat = Heartbeat(store, held=self._held, cancel=self._cancel, found=self.look, keep_days=keep_days)
        self._waiting = 0  # tasks that wait in the database, as last counted and heard of since
        self._promised: dict[str, tuple[Task, float]] = {}  # they have a slot, and start when their answers have gone
        self._promises = Counter[bool]()  # of each lane
        self._is_backlog = False  # the last claim could have taken more
        self._rate = Rate()
        self._claiming = Loop(self.claim, POLL_SECONDS)
        self._beating = Loop(self._beat, heartbeat.BEAT_SECONDS)

    async def begin(self) -> None:
        """Make this worker known, and start to claim."""
        await self._heartbeat.begin()
        self._claiming.begin()
        self._beating.begin()

    async def state(self) -> dict[str, Any]:
        """Tell how many tasks wait and run, for how long the oldest has been due (s), and how many settle a second."""
        return {
            "queued": await self._store.count_due(self._max_queued),
            "running": self._engine.load()["running"],
            "oldest_waiting": round(await self._store.oldest_waiting(), 3),
            "rate": round(self._rate.per_second(), 1),
        }

    # --- a request's tasks ---

    async def accept(self, tasks: Sequence[Task]) -> None:
        """Store the tasks in one commit.

        Raises `Overloaded`, `ArgumentsRefused` or `DatabaseUnavailable`: then none is stored.
        """
        self._refuse_excess(len(tasks))
        arguments = [store_arguments(task) for task in tasks]
        for task in tasks:
            self._promise(task)
        try:
            await self._store.enqueue([self._row(task, text) for task, text in zip(tasks, arguments, strict=True)])
        except BaseException:
            for task in tasks:
                self._keep_promise(task.id)
            raise
        self._waiting += sum(not task.worker and not _waits(task) for task in tasks)

    async def accept_within(self, connection: Connection, tasks: Sequence[Task]) -> None:
        """Store the tasks in the caller's transaction; otherwise as `accept`."""
        self._refuse_excess(len(tasks))
        await self._store.enqueue_within(connection, [self._row(task, store_arguments(task)) for task in tasks])
        self._waiting += sum(not _waits(task) for task in tasks)

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

    def _refuse_excess(self, count: int) -> None:
        excess = self._waiting + count - self._max_queued
        if excess > 0:
            rate = self._rate.per_second()
            raise Overloaded(min(600, math.ceil(excess / rate)) if rate else RETRY_AFTER_SECONDS)

    def _row(self, task: Task, arguments: str) -> dict[str, Any]:
        return row_of(task, arguments, self.hand_off_after)

    def _promise(self, task: Task) -> None:
        lane = not task.is_async
        if not _waits(task) and self._claiming.is_running() and self._free(lane) > 0:
            task.worker = self._heartbeat.identity
            self._promised[task.id] = task, time.monotonic()
            self._promises[lane] += 1

    def _keep_promise(self, id: str) -> bool:
        task, _ = self._promised.pop(id, (None, 0.0))
        if task is None:
            return False
        self._promises[not task.is_async] -= 1
        return True

    def _free(self, lane: bool) -> int:
        return self._engine.free(in_thread=lane) - self._promises[lane]

    # --- claim and settle ---

    async def claim(self) -> bool:
        """Start what is due, as far as there are slots; tell whether there may be more."""
        self._is_backlog = False
        for lane in LANES:
            free = {**self._engine.free_for_suspects(), Room.SLOTS: self._free(lane)}
            rows: Sequence[Any] = []
            if any(free.values()):
                rows = await self._store.claim(self._heartbeat.identity, in_thread=lane, free=free)
            self._waiting = max(0, self._waiting - len(rows))
            unfit = [(row, error) for row in rows if (error := self._begin_attempt(row))]
            self._is_backlog |= len(rows) >= free[Room.SLOTS]
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
        self._waiting = await self._store.count_due(self._max_queued + 1)
        self._start_forgotten()

    def _held(self) -> set[str]:
        return {*self._engine.stored(), *self._promised}

    def _cancel(self, id: str) -> None:
        self._keep_promise(id)
        self._engine.cancel(id)

    def _start_forgotten(self) -> None:
        # A response that broke off before its background ran has left its tasks behind.
        late = time.monotonic() - ANSWER_SECONDS
        self.start([task for task, since in list(self._promised.values()) if since < late])

    # --- the end ---

    async def drain(self, seconds: float) -> None:
        """Claim no more, give what runs so many seconds, and give the rest back to be run elsewhere at once."""
        if not self._beating.is_running():
            return
        await self._claiming.end(LOOP_SECONDS)  # what it claims at this moment is to be drained as well
        self.start([task for task, _ in list(self._promised.values())])
        await self._engine.drain(seconds, tell_of_cut_off)
        await self._beating.end(LOOP_SECONDS)  # not before: a worker that drains is alive
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._store.close()
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
