"""A kit for tests of task functions: the real worker and database, run by hand, by a set clock.

    async with TaskKit() as kit:
        id = await kit.enqueue(announce, "ada")
        [attempt] = await kit.drain()

docs/testing_tasks.md tells more.
"""

import asyncio
import tempfile
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Self

from afterwards import registry
from afterwards.errors import UnknownTask
from afterwards.limits import Limits
from afterwards.model import Attempt, Lane, Outcome, Task, new_task_id
from afterwards.process import Process
from afterwards.retries import settlement
from afterwards.slots import Settle, Slots, forget
from afterwards.store.database import Database
from afterwards.store.tasks import Store
from afterwards.tracing import NO_TRACING, Tracing
from afterwards.turns import Free

if TYPE_CHECKING:
    from afterwards.app import Afterwards

P = ParamSpec("P")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# What is not due by the kit's clock is written as due in three thousand years: the database's own
# clock runs on.
HELD_BACK = 10**17

IS_WAITING = "state {may:claim} AND follows IS NULL"
HOLD_BACK = f"UPDATE {{tasks}} SET run_at = :held WHERE id = :id AND {IS_WAITING}"
# What a route attached for later is due by the database's clock, so long after its creation.
HOLD_BACK_LATER = f"""
UPDATE {{tasks}} SET run_at = :held + run_at - created_at
WHERE {IS_WAITING} AND attempt = 0 AND run_at > {{now}} AND run_at < :held_back
"""
SET_CLOCK = f"""
UPDATE {{tasks}} SET run_at = {{now}} - :now + run_at - :held_back
WHERE {IS_WAITING} AND run_at BETWEEN :held_back AND :held_back + :now
"""


class _ByHand(Slots):
    """Slots that hold what is started until `run` is awaited, and have room for one task."""

    def __init__(self, timeout: float, tracing: Tracing) -> None:
        super().__init__(max_running=1, threads=1, timeout=timeout, tracing=tracing)
        self._started: deque[tuple[Task, Settle]] = deque()

    def start(self, sequences: Sequence[Sequence[Task]], settle: Settle = forget) -> None:
        self._started.extend((task, settle) for sequence in sequences for task in sequence)

    def free(self, lane: Lane) -> Free:
        return dict.fromkeys(super().free(lane), 0) if self._started else super().free(lane)

    async def run(self) -> list[Attempt]:
        """Run what was started, one task after another, and return the attempts."""
        ran = []
        while self._started:
            ran.append(await self._run_one(*self._started.popleft()))
        return ran

    async def _run_one(self, task: Task, settle: Settle) -> Attempt:
        settled: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()

        def end(attempt: Attempt, leave: Callable[[], None]) -> None:
            def left() -> None:
                leave()
                settled.set_result(attempt)

            settle(attempt, left)

        super().start([[task]], end)
        running, *_ = self._unfinished[task]
        assert running is not None
        await running
        attempt = await settled
        this = asyncio.current_task()
        if attempt.outcome is Outcome.RELEASED and this is not None and this.cancelling():
            raise asyncio.CancelledError  # it was meant for the caller
        return attempt


class TaskKit:
    """Tasks that run only when `drain` is awaited, over a SQLite file that ends with the kit.

    `now` is the kit's clock: it stands still, until it is set. `database_url` names another
    database, whose tasks are this kit's alone while it lasts; `timeout` (s) is for task functions
    without one of their own, and `tracing` traces every attempt.
    """

    def __init__(
        self,
        database_url: str | None = None,
        *,
        timeout: float = 60.0,
        tracing: Tracing = NO_TRACING,
    ) -> None:
        self.now = datetime.now(UTC)
        self.slots = _ByHand(timeout, tracing)
        self._url = database_url
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        directory = self._open.enter_context(tempfile.TemporaryDirectory())
        self.database = Database(self._url or f"sqlite:///{directory}/tasks.db")
        self._open.push_async_callback(self.database.close)
        await self.database.make_tables()
        self.store = Store(self.database)
        self._open.push_async_callback(self.store.close)
        # It never begins, so that it claims only when it is told to.
        self.process = Process(self.store, Limits(max_queued=1_000_000), slots=self.slots)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    def put_on(self, afterwards: "Afterwards") -> None:
        """Have this kit run the tasks of the applications that installed it."""
        afterwards.run_with(self.database, self.process)

    async def enqueue(
        self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> str:
        """Store a task that is due at once, and return its id; raise `ArgumentsRefused`."""
        entry = registry.of_function(function)
        if entry is None:
            raise UnknownTask(f"{function!r} is not under @task")
        task = Task(
            new_task_id(), entry.name, function, entry.is_async, args, kwargs, policy=entry.policy
        )
        await self.process.accept([task])
        return task.id

    async def enqueue_at(
        self, moment: datetime, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> str:
        """Store a task that is not due before that moment of the kit's clock."""
        id = await self.enqueue(function, *args, **kwargs)
        await self._hold_back(id, moment)
        return id

    async def drain(self) -> list[Attempt]:
        """Run what is due, and what becomes due by that, until nothing is; return the attempts.

        A task that failed is due after the longest pause that its backoff may choose: nothing is
        left to chance.
        """
        await self._hold_back_later()
        ran = await self.slots.run()
        while await self._claim():
            for attempt in await self.slots.run():
                ran.append(attempt)
                if attempt.outcome and (pause := settlement(attempt, lambda: 1.0).delay):
                    await self._hold_back(attempt.task.id, self.now + timedelta(seconds=pause))
        return ran

    async def advance(self, seconds: float) -> None:
        """Set the clock on by so many seconds: what is due by then runs at the next `drain`."""
        await self.set_clock(self.now + timedelta(seconds=seconds))

    async def set_clock(self, moment: datetime) -> None:
        """Set the clock; one that is set back makes nothing wait that was due."""
        await self._hold_back_later()
        self.now = moment
        values = {"now": _microseconds(moment), "held_back": HELD_BACK}
        await self.database.change(SET_CLOCK, values)

    async def row(self, id: str) -> Any:
        """Return the task's row, with `state`, `attempt`, `result` (JSON) and so on."""
        row = await self.store.get(id)
        if row is None:
            raise LookupError(f"there is no task {id}")
        return row

    async def due_at(self, id: str) -> datetime | None:
        """Return when the task is due by the kit's clock, None if that is not still to come."""
        await self._hold_back_later()
        held_back = (await self.row(id)).run_at - HELD_BACK
        return EPOCH + held_back * MICROSECOND if held_back >= 0 else None

    async def _claim(self) -> bool:
        assert self.process.worker is not None
        return await self.process.worker.claim()

    async def _hold_back(self, id: str, moment: datetime) -> None:
        if moment > self.now:
            held = HELD_BACK + _microseconds(moment)
            await self.database.change(HOLD_BACK, {"held": held, "id": id})

    async def _hold_back_later(self) -> None:
        held = HELD_BACK + _microseconds(self.now)
        await self.database.change(HOLD_BACK_LATER, {"held": held, "held_back": HELD_BACK})


def _microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND
