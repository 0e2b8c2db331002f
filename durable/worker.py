"""The loop that runs stored tasks: accept, claim, settle, heartbeat, rescue, drain.

What a worker knows in memory is a hint; the rows are the truth.
"""

import asyncio
import json
import logging
import math
import os
import secrets
import socket
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from durable import registry
from durable.engines import Engine
from durable.errors import Overloaded
from durable.model import Attempt, Outcome, State, Task
from durable.rate import Rate
from durable.retries import Settlement, settlement
from durable.store import MICROSECONDS, Store
from storage.database import Connection, DatabaseUnavailable

log = logging.getLogger("tasks")

POLL_SECONDS = 0.5  # how late a retry, or another process's task, may be noticed
BEAT_SECONDS = 2.0
DEAD_SECONDS = 10.0  # a worker silent for so long is dead: five missed beats
ANSWER_SECONDS = 1.0  # a task whose answer has not gone by then starts all the same
CLOCK_SECONDS = 60  # a clock that goes back by less is nobody's hand
PRUNE_SECONDS = 60.0
LOOP_SECONDS, RELEASE_SECONDS = 0.3, 1.0  # for a loop's last step, and for the last words to the database
MAX_RESULT = 256 * 1024  # characters of a result's JSON that a row keeps
RETRY_AFTER_SECONDS = 30  # what a client is told when nothing has settled lately
LANES = (False, True)  # coroutines, and plain functions, which run in threads


class Worker:
    """Accepts tasks into the database, and runs what is due there in the engine's free slots."""

    def __init__(self, store: Store, engine: Engine, *, max_queued: int, keep_days: float) -> None:
        self.identity = _new_identity()
        self._store = store
        self._engine = engine
        self._max_queued = max_queued
        self._keep_days = keep_days
        self._waiting = 0  # tasks that wait in the database, as last counted and heard of since
        self._promised: dict[str, tuple[Task, float]] = {}  # they have a slot, and start when their answers have gone
        self._promises = Counter[bool]()  # of each lane
        self._more = asyncio.Event()  # there may be something to claim
        self._is_backlog = False  # the last claim could have taken more
        self._seen: dict[str, tuple[int, float]] = {}  # every worker's beats, and when they last changed
        self._rate = Rate()
        self._looked_at = 0.0
        self._strays: set[str] = set()  # held in the database, unknown here, at the last beat
        self._clock_ahead = 0  # by how much the database's clock is ahead of this process's monotonic one
        self._pruned_at = time.monotonic()
        self._loops: list[asyncio.Task[None]] = []

    async def begin(self) -> None:
        """Make this worker known, and start to claim."""
        await self._store.register(self.identity)
        await self._store.pull_back()
        self._clock_ahead = await self._database_is_ahead()
        self._loops = [
            asyncio.create_task(_for_ever(self._claim, self._until_more)),
            asyncio.create_task(_for_ever(self._beat, lambda: asyncio.sleep(BEAT_SECONDS))),
        ]

    async def state(self) -> dict[str, Any]:
        """Tell how many tasks wait and run, for how long the oldest has been due (s), and how many settle a second."""
        return {
            "queued": await self._store.count_waiting(self._max_queued),
            "running": self._engine.load()["running"],
            "oldest_waiting": round(await self._store.oldest_waiting(), 3),
            "rate": round(self._rate.per_second(), 1),
        }

    # --- a request's tasks ---

    async def accept(self, tasks: Sequence[Task]) -> None:
        """Store the tasks in one commit.

        Raises `Overloaded`, `ArgumentsRefused` or `DatabaseUnavailable`: then none is stored.
        """
        prepared = self._prepared(tasks)
        rows = [self._row(task, arguments, self._promise(task)) for task, arguments in prepared]
        try:
            await self._store.enqueue(rows)
        except BaseException:
            for task, _ in prepared:
                self._keep_promise(task.id)
            raise
        self._waiting += sum(not row["claimed"] for row in rows)

    async def accept_within(self, connection: Connection, tasks: Sequence[Task]) -> None:
        """Store the tasks in the caller's transaction; otherwise as `accept`."""
        prepared = self._prepared(tasks)
        await self._store.enqueue_within(connection, [self._row(task, text, False) for task, text in prepared])
        self._waiting += len(prepared)

    def start(self, tasks: Sequence[Task]) -> None:
        """Start those tasks that have a slot, and look for one for the others: their answer has gone."""
        for task in tasks:
            if self._keep_promise(task.id):
                self._engine.start([[task]], self._settle)
            else:
                self.look()

    def look(self) -> None:
        """Look for tasks at once: somebody knows of one."""
        self._more.set()

    def _prepared(self, tasks: Sequence[Task]) -> list[tuple[Task, str]]:
        excess = self._waiting + len(tasks) - self._max_queued
        if excess > 0:
            rate = self._rate.per_second()
            raise Overloaded(min(600, math.ceil(excess / rate)) if rate else RETRY_AFTER_SECONDS)
        return [_prepared(task) for task in tasks]

    def _promise(self, task: Task) -> bool:
        lane = not task.is_async
        if not self._loops or self._free(lane) <= 0:
            return False
        task.worker = self.identity
        self._promised[task.id] = task, time.monotonic()
        self._promises[lane] += 1
        return True

    def _keep_promise(self, id: str) -> bool:
        task, _ = self._promised.pop(id, (None, 0.0))
        if task is None:
            return False
        self._promises[not task.is_async] -= 1
        return True

    def _free(self, lane: bool) -> int:
        return self._engine.free(in_thread=lane) - self._promises[lane]

    def _row(self, task: Task, arguments: str, claimed: bool) -> dict[str, Any]:
        delay = max(0.0, (task.run_at - datetime.now(UTC)).total_seconds()) if task.run_at else 0.0
        return {
            "id": task.id,
            "name": task.name,
            "arguments": arguments,
            "in_thread": not task.is_async,
            "carrier": task.carrier,
            "max_attempts": task.policy.attempts,
            "state": State.RUNNING if claimed else State.QUEUED,
            "worker": self.identity if claimed else None,
            "claimed": claimed,
            "delay_us": int(delay * MICROSECONDS),
        }

    # --- claim and settle ---

    async def _until_more(self) -> None:
        try:
            async with asyncio.timeout(POLL_SECONDS):
                await self._more.wait()
        except TimeoutError:
            return

    async def _claim(self) -> None:
        self._more.clear()
        self._is_backlog = False
        for lane in LANES:
            most = self._free(lane)
            rows = await self._store.claim(self.identity, in_thread=lane, most=most) if most > 0 else []
            self._waiting = max(0, self._waiting - len(rows))
            self._is_backlog |= len(rows) >= most
            unfit = [(row, error) for row in rows if (error := self._begin_attempt(row))]
            for row, error in unfit:
                log.error("%s %s is dead: %s", row.name, row.id, error)
                dead = Settlement(State.DEAD, error_kind=type(error).__name__, error_message=str(error))
                await self._store.settle(row.id, row.worker, row.attempt, dead, None)

    def _begin_attempt(self, row: Any) -> Exception | None:
        """Start what was claimed; return why that cannot be."""
        try:
            task = _task_of(row)
        except Exception as error:  # a type of an argument may raise anything
            return error
        self._engine.start([[task]], self._settle)
        return None

    async def _settle(self, attempt: Attempt) -> None:
        """Record the outcome, however long the database is away; what was released stays for `release` or a rescue."""
        task, outcome = attempt.task, settlement(attempt)
        if attempt.outcome is not Outcome.RELEASED:
            result, pause = _result(attempt), 0.1
            while not await self._is_settled(task, outcome, result):
                await asyncio.sleep(pause)
                pause = min(2.0, pause * 2)
            self._rate.count()
        if self._is_backlog:
            self._more.set()

    async def _is_settled(self, task: Task, outcome: Settlement, result: str | None) -> bool:
        try:
            await self._store.settle(task.id, task.worker, task.attempt, outcome, result)
        except DatabaseUnavailable:
            return False
        if outcome.state is State.RETRYING:
            log.info("%s will be tried again in %.1f s", task.name, outcome.delay)
        elif outcome.state is State.DEAD:
            log.error("%s is dead after %d attempts: %s", task.name, task.attempt, outcome.error_message)
        return True

    # --- heartbeat and rescue ---

    async def _beat(self) -> None:
        if not await self._store.beat(self.identity):
            await self._be_reborn()
        await self._bury_the_dead()
        for row in await self._store.rescue():
            log.warning("%s %s was rescued from a dead worker and is %s", row.name, row.id, row.state)
            self._more.set()
        for id in await self._store.cancelled_under(self.identity):
            self._engine.cancel(id)
        await self._give_back_strays()
        await self._follow_the_clock()
        self._waiting = await self._store.count_waiting(self._max_queued + 1)
        self._start_forgotten()
        if time.monotonic() - self._pruned_at > PRUNE_SECONDS:
            self._pruned_at = time.monotonic()
            await self._store.prune(self._keep_days)

    async def _give_back_strays(self) -> None:
        # A commit whose answer was lost leaves rows that run under this worker's claim, and that it has never heard of.
        # Once could be a task that starts or ends at this moment.
        strays = await self._store.held_by(self.identity) - {*self._engine.stored(), *self._promised}
        if twice := strays & self._strays:
            log.warning("%d tasks were claimed without this worker's knowing; they are given back", len(twice))
            await self._store.give_back(self.identity, twice)
            self._more.set()
        self._strays = strays - twice

    async def _follow_the_clock(self) -> None:
        ahead = await self._database_is_ahead()
        if ahead < self._clock_ahead - CLOCK_SECONDS * MICROSECONDS:
            count = await self._store.pull_back()
            log.warning("the database's clock was set back; %d waiting tasks are due by the new time", count)
            self._more.set()
        self._clock_ahead = ahead

    async def _database_is_ahead(self) -> int:
        return await self._store.now() - int(time.monotonic() * MICROSECONDS)

    async def _bury_the_dead(self) -> None:
        now, beats = time.monotonic(), await self._store.beats()
        if now - self._looked_at > 2 * BEAT_SECONDS:
            self._seen = {}  # this worker could not look, and so has seen no silence
        self._looked_at = now
        self._seen = {
            id: self._seen[id] if self._seen.get(id, (-1,))[0] == count else (count, now) for id, count in beats.items()
        }
        dead = [id for id, (_, since) in self._seen.items() if now - since > DEAD_SECONDS and id != self.identity]
        if dead:
            log.warning("silent for %g s, and so dead: %s", DEAD_SECONDS, ", ".join(dead))
            await self._store.bury(dead)

    async def _be_reborn(self) -> None:
        """Start anew after others have given this worker's tasks away: two must not run one task."""
        log.error("this worker was silent for %g s and declared dead; it drops what it runs", DEAD_SECONDS)
        for id in self._engine.stored():
            self._engine.cancel(id)
        self.identity = _new_identity()
        await self._store.register(self.identity)

    def _start_forgotten(self) -> None:
        # A response that broke off before its background ran has left its tasks behind.
        late = time.monotonic() - ANSWER_SECONDS
        self.start([task for task, since in list(self._promised.values()) if since < late])

    # --- the end ---

    async def drain(self, seconds: float) -> None:
        """Claim no more, give what runs so many seconds, and give the rest back to be run elsewhere at once."""
        loops, self._loops = self._loops, []
        if not loops:
            return
        claiming, beating = loops
        claiming.cancel()
        await asyncio.wait([claiming], timeout=LOOP_SECONDS)  # what it claims at this moment is to be drained as well
        self.start([task for task, _ in list(self._promised.values())])
        await self._engine.drain(seconds, _tell_of_cut_off)
        beating.cancel()  # not before: a worker that drains is alive
        await asyncio.wait([beating], timeout=LOOP_SECONDS)  # its connection must not be closed under it
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                await self._store.close()
                await self._store.release(self.identity)
        except (DatabaseUnavailable, TimeoutError):
            log.warning(
                "the database is away; others will rescue within %g s what this worker still held", DEAD_SECONDS
            )


def _tell_of_cut_off(task: Task) -> None:
    fate = "given back, to be run again" if task.stored else "lost, because it lived in memory only"
    log.warning("the shutdown cuts off %s %s; it is %s", task.name, task.id, fate)


async def _for_ever(step: Callable[[], Awaitable[None]], pause: Callable[[], Awaitable[None]]) -> None:
    """Repeat the step, whatever it raises: a loop that has died is the worst that can happen to a queue."""
    is_away = False
    while True:
        try:
            await step()
            if is_away:
                log.info("the database is back")
            is_away = False
        except DatabaseUnavailable as error:
            if not is_away:
                log.warning("the database is unavailable, trying again: %s", error)
            is_away = True
        except Exception:
            log.exception("a step of the worker failed; it goes on")
        await pause()


def _new_identity() -> str:
    # Host and pid are for people. The random part makes it new at every start: platforms use host names again.
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(4)}"


def _prepared(task: Task) -> tuple[Task, str]:
    """Turn a request's task into what it will be when it comes back from its row, and its arguments into JSON."""
    entry = registry.of_function(task.function)
    assert entry is not None
    task.kwargs, arguments = entry.dump(task.args, task.kwargs)
    task.args, task.stored = (), True
    return task, arguments


def _task_of(row: Any) -> Task:
    entry = registry.of_name(row.name)
    due_for = timedelta(microseconds=max(0, row.started_at - row.run_at))
    return Task(
        row.id,
        row.name,
        entry.function,
        entry.is_async,
        kwargs=entry.load(row.arguments),
        carrier=row.carrier,
        created_at=datetime.now(UTC) - due_for,
        policy=replace(entry.policy, attempts=row.max_attempts),
        attempt=row.attempt,
        stored=True,
        worker=row.worker,
    )


def _result(attempt: Attempt) -> str | None:
    if attempt.result is None:
        return None
    try:
        text = json.dumps(attempt.result, allow_nan=False)
        text.encode()
    except (TypeError, ValueError, RecursionError) as error:
        log.warning("%s returned what is not JSON, and its result is not kept: %s", attempt.task.name, error)
        return None
    if len(text) > MAX_RESULT:
        log.warning("%s returned %d characters of JSON, too many to be kept", attempt.task.name, len(text))
        return None
    return text
