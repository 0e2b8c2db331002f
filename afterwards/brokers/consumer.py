"""Runs stored tasks that are named to it one by one, whatever thread names them: in one event loop of its own."""

import asyncio
import logging
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from afterwards import heartbeat
from afterwards.brokers import Engine
from afterwards.heartbeat import Heartbeat
from afterwards.loop import Loop
from afterwards.model import Attempt, Task
from afterwards.rows import task_of
from afterwards.settling import patiently, refuse, settle
from afterwards.store.database import Database
from afterwards.store.failures import DatabaseUnavailable
from afterwards.store.tasks import Store
from afterwards.upkeep import Upkeep
from afterwards.worker import tell_of_cut_off

log = logging.getLogger("tasks")

T = TypeVar("T")

LOOP_SECONDS, END_SECONDS = (
    0.3,
    3.0,
)  # for the last heartbeat, and for the last words to the database

UNSEEN = (
    "%s %s is not in this worker's database, so it cannot run here: set the same DATABASE_URL as for the web processes "
    "(an SQLite file works on their machine only)"
)


class Runner:
    """One process's share of a fleet: its loop, its database, its heartbeat, and the tasks that it is told to run."""

    def __init__(
        self, database: Database, engine: Engine, *, keep_days: float, family: str
    ) -> None:
        self._database = database
        self._store = Store(database, settle_patience=0.0)
        self._engine = engine
        self._heartbeat = Heartbeat(
            self._store,
            held=engine.stored,
            cancel=engine.cancel,
            found=lambda: None,  # whoever hands off finds it in the database
            family=family,
        )
        self._upkeep = Upkeep(self._store, keep_days, self._heartbeat.is_known)
        self._has_ended = False
        self._beating = Loop(self._heartbeat.beat, heartbeat.BEAT_SECONDS)

    async def begin(self) -> None:
        """Make this worker known, and keep it so, however long the database is away."""
        self._beating.begin()
        self._upkeep.begin()

    async def run(self, id: str, name: str, carrier: str) -> str:
        """Claim the task, run one attempt and settle it; tell in a word what became of it."""
        await self._heartbeat.is_known.wait()
        if self._has_ended:
            return "refused"
        row = await patiently(lambda: self._store.claim_one(self._heartbeat.identity, id))
        if row is None:
            return await self._refused(id, name)
        if not self._heartbeat.vouches_for(row.worker):
            return "refused"
        try:
            task = task_of(row)
        except Exception as error:  # a type of an argument may raise anything
            await refuse(self._store, row, error)
            return "unfit"
        task.carrier = carrier or task.carrier
        return await self._settled(task)

    async def end(self) -> None:
        """Cut off what still runs, and give it back to be run elsewhere at once, with the attempt not counted."""
        self._has_ended = True
        self._heartbeat.end()
        await self._engine.drain(0, tell_of_cut_off)
        try:
            async with asyncio.timeout(END_SECONDS):
                await self._upkeep.end()
                await self._beating.end(LOOP_SECONDS)
                await self._store.close()
                await self._store.release(self._heartbeat.identity)
        except (DatabaseUnavailable, TimeoutError):
            log.warning("the database is away; others will rescue what this worker still held")
        await self._database.close()

    async def _refused(self, id: str, name: str) -> str:
        try:
            row = await self._store.get(id)
        except DatabaseUnavailable:
            return "refused"
        if row is None:
            log.error(UNSEEN, name, id)
            return "unseen"
        log.debug("%s %s is %s: somebody else has it, or it is not due", name, id, row.state)
        return "refused"

    async def _settled(self, task: Task) -> str:
        word: asyncio.Future[str] = asyncio.get_running_loop().create_future()

        async def ended(attempt: Attempt) -> None:
            await settle(self._store, attempt)
            if not word.done():
                word.set_result(str(attempt.outcome))

        self._engine.start([[task]], ended)
        return await word


class LoopThread:
    """An event loop in a daemon thread, for coroutines from other threads."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="tasks", daemon=True).start()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run the coroutine there, and wait for its end."""
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result()
