"""Runs stored tasks that a broker names, one by one: in one event loop, whatever thread asks."""

import asyncio
import logging
import threading
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

from afterwards.attachments import Attachments
from afterwards.limits import Limits
from afterwards.maintenance import Maintenance
from afterwards.mention import about
from afterwards.model import Attempt, Delivery, Task
from afterwards.rows import task_of
from afterwards.settling import refuse, settle, until_available
from afterwards.slots import Slots
from afterwards.store.database import Database
from afterwards.store.failures import DatabaseUnavailable
from afterwards.store.tasks import Store
from afterwards.tracing import Tracing

log = logging.getLogger("tasks")

T = TypeVar("T")

SETTLE_SECONDS = 1.0  # for what has ended and is not settled when the process ends
UNBOUNDED = 1_000_000  # so many attempts at a time: Celery's --concurrency is the bound

UNSEEN = (
    "%s %s is not in this worker's database, so it cannot run here: set the same DATABASE_URL as "
    "for the web processes (an SQLite file works on their machine only)"
)


class Consumer:
    """Claims what it is told of, runs it and settles it; closes its database when it ends."""

    def __init__(
        self,
        database: Database,
        limits: Limits,
        tracing: Tracing,
        *,
        family: str,
        attachments: Attachments | None = None,
    ) -> None:
        self._database = database
        self._store = Store(database)
        self._slots = Slots(
            max_running=UNBOUNDED,
            threads=UNBOUNDED,
            timeout=limits.timeout,
            tracing=tracing,
            is_consumed=True,
        )
        self._maintenance = Maintenance(
            self._store,
            limits,
            held=self._slots.held,
            cancel=self._slots.cancel,
            found=lambda: None,  # whoever publishes finds it in the database
            family=family,
            attachments=attachments,
        )
        self._has_ended = False

    async def begin(self) -> None:
        """Make this worker known, and keep it so, however long the database is away."""
        self._maintenance.begin()

    async def run(self, id: str, name: str, delivery: Delivery) -> str:
        """Claim the task and run one attempt; return a word for what became of it.

        By then the message has served: a claimed row is rescued where its worker dies.
        """
        beats = self._maintenance.heartbeat
        await beats.is_known.wait()
        if self._has_ended:
            return "refused"
        row = await until_available(lambda: self._store.claim_one(beats.identity, id))
        if row is None:
            return await self._refused(id, name, delivery.carrier)
        if not beats.vouches_for(row.worker):
            return "refused"
        try:
            task = task_of(row, self._store.seal)
        except Exception as error:  # a type of an argument may raise anything
            refuse(self._store, row, error)
            return "unfit"
        carrier = delivery.carrier or task.carrier
        return await self._ended(replace(task, carrier=carrier, delivery=delivery))

    async def end(self) -> None:
        """Cut off what still runs, and give it back to be run elsewhere at once, not counted."""
        self._has_ended = True
        with suppress(TimeoutError):  # then what has ended is given back, too
            async with asyncio.timeout(SETTLE_SECONDS):
                await self._store.close()
        await self._slots.drain(0)
        await self._maintenance.end_upkeep()
        await self._maintenance.end()
        await self._database.close()

    async def _refused(self, id: str, name: str, carrier: str) -> str:
        try:
            row = await self._store.get(id)
        except DatabaseUnavailable:
            return "refused"
        if row is None:
            with about(id, carrier):
                log.error(UNSEEN, name, id)
            return "unseen"
        log.debug("%s %s is %s: somebody else has it, or it is not due", name, id, row.state)
        return "refused"

    async def _ended(self, task: Task) -> str:
        """Run the task until it has ended; its settle goes with those of others, meanwhile."""
        word: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        def end(attempt: Attempt, leave: Callable[[], None]) -> None:
            if not word.done():
                word.set_result(str(attempt.outcome))
            settle(self._store, attempt, leave)

        self._slots.start([[task]], end)
        return await word


class LoopThread:
    """An event loop in a daemon thread, for coroutines from other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="tasks", daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, T], seconds: float | None = None) -> T:
        """Run the coroutine there, and wait for its end; raise TimeoutError after so long."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(seconds)
