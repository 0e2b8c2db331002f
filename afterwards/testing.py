"""A kit for tests of task functions: the real worker over a real database, run by hand, with a clock that is set.

    async with TaskKit() as kit:
        id = await kit.enqueue(announce, "ada")
        [attempt] = await kit.drain()

docs/testing_tasks.md tells more.
"""

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager, AsyncExitStack, nullcontext
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Self

from sqlalchemy import Executable, update

from afterwards import registry
from afterwards.attempt import Surrounding
from afterwards.errors import UnknownTask
from afterwards.inline import InlineEngine
from afterwards.model import Attempt, Task, new_task_id
from afterwards.retries import settlement
from afterwards.store.database import Database
from afterwards.store.tables import IS_WAITING, clock, tasks
from afterwards.store.tasks import Store
from afterwards.worker import Worker

if TYPE_CHECKING:
    from afterwards.app import Afterwards

P = ParamSpec("P")

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)
# What is not due by the kit's clock is written as due in three thousand years: the database's own
# clock runs on.
HELD_BACK = 10**17


def _nothing(attempt: Attempt) -> AbstractContextManager[None]:
    return nullcontext()


class TaskKit:
    """Tasks that run only when `drain` is awaited, over an empty SQLite file that ends with the kit.

    `now` is the kit's clock: it stands still, until it is set. `database_url` names another
    database, whose tasks are this kit's alone while it lasts; `timeout` (s) is for task functions
    without one of their own, and `surrounding` surrounds every attempt.
    """

    def __init__(
        self,
        database_url: str | None = None,
        *,
        timeout: float = 60.0,
        surrounding: Surrounding = _nothing,
    ) -> None:
        self.now = datetime.now(UTC)
        self.engine = InlineEngine(timeout=timeout, surrounding=surrounding)
        self._url = database_url
        self._open = AsyncExitStack()

    async def __aenter__(self) -> Self:
        directory = self._open.enter_context(tempfile.TemporaryDirectory())
        self.database = Database(self._url or f"sqlite:///{directory}/tasks.db")
        self._open.push_async_callback(self.database.close)
        await self.database.make_tables()
        self.store = Store(self.database)
        self._open.push_async_callback(self.store.close)
        self.worker = Worker(self.store, self.engine, max_queued=1_000_000, keep_days=7)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._open.aclose()

    def put_on(self, afterwards: "Afterwards") -> None:
        """Have this kit run the tasks of the applications that installed it."""
        afterwards.run_with(self.database, self.store, self.engine, self.worker)

    async def enqueue(
        self, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> str:
        """Store a task that is due at once, and return its id; raise `ArgumentsRefused` as a request would."""
        entry = registry.of_function(function)
        if entry is None:
            raise UnknownTask(f"{function!r} is not under @task")
        task = Task(
            new_task_id(), entry.name, function, entry.is_async, args, kwargs, policy=entry.policy
        )
        await self.worker.accept([task])
        return task.id

    async def enqueue_at(
        self, moment: datetime, function: Callable[P, object], *args: P.args, **kwargs: P.kwargs
    ) -> str:
        """Store a task that is not due before that moment of the kit's clock."""
        id = await self.enqueue(function, *args, **kwargs)
        await self._hold_back(id, moment)
        return id

    async def drain(self) -> list[Attempt]:
        """Run what is due, and what becomes due by that, until nothing is; return the attempts as they ran.

        A task that failed is due after the longest pause that its backoff may choose: nothing is
        left to chance.
        """
        await self._hold_back_later()
        ran = await self.engine.run()
        while await self.worker.claim():
            for attempt in await self.engine.run():
                ran.append(attempt)
                if attempt.outcome and (pause := settlement(attempt, lambda: 1.0).delay):
                    await self._hold_back(attempt.task.id, self.now + timedelta(seconds=pause))
        return ran

    async def advance(self, seconds: float) -> None:
        """Set the clock on by so many seconds, without waiting; what is due by then runs at the next `drain`."""
        await self.set_clock(self.now + timedelta(seconds=seconds))

    async def set_clock(self, moment: datetime) -> None:
        """Set the clock; one that is set back makes nothing wait that was due."""
        await self._hold_back_later()
        self.now = moment
        due_at, now = tasks.c.run_at - HELD_BACK, _microseconds(moment)
        due = update(tasks).where(IS_WAITING, due_at.between(0, now))
        await self._execute(due.values(run_at=clock() - now + due_at))

    async def row(self, id: str) -> Any:
        """Give the task's row: `state`, `attempt`, `crashes`, `result` as JSON, `error_kind`, `error_message`."""
        row = await self.store.get(id)
        if row is None:
            raise LookupError(f"there is no task {id}")
        return row

    async def due_at(self, id: str) -> datetime | None:
        """Tell when the task will be due by the kit's clock; None if it waits for no moment to come."""
        await self._hold_back_later()
        held_back = (await self.row(id)).run_at - HELD_BACK
        return EPOCH + held_back * MICROSECOND if held_back >= 0 else None

    async def _hold_back(self, id: str, moment: datetime) -> None:
        if moment > self.now:
            held = HELD_BACK + _microseconds(moment)
            await self._execute(
                update(tasks).where(tasks.c.id == id, IS_WAITING).values(run_at=held)
            )

    async def _hold_back_later(self) -> None:
        # What a route attached for later is due by the database's clock, so long after its
        # creation.
        is_later = (
            IS_WAITING,
            tasks.c.attempt == 0,
            tasks.c.run_at > clock(),
            tasks.c.run_at < HELD_BACK,
        )
        due_at = _microseconds(self.now) + tasks.c.run_at - tasks.c.created_at
        await self._execute(update(tasks).where(*is_later).values(run_at=HELD_BACK + due_at))

    async def _execute(self, statement: Executable) -> None:
        async with self.database.transaction() as connection:
            await connection.execute(statement)


def _microseconds(moment: datetime) -> int:
    return (moment - EPOCH) // MICROSECOND
