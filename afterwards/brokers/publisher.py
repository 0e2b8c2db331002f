"""The worker of a process that runs nothing: it accepts tasks, and hands them off to a broker."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from afterwards.brokers import Broker, BrokerUnavailable, Engine, HandOff
from afterwards.model import Task
from afterwards.store import tasks as stores
from afterwards.store.failures import DatabaseUnavailable
from afterwards.store.tasks import Store
from afterwards.threads import start_in_thread
from afterwards.worker import POLL_SECONDS, Worker

log = logging.getLogger("tasks")

BATCH = 200  # tasks in one visit to the thread that sends
MOST_FRESH = (
    10_000  # tasks that memory holds for the broker; the database hands off what comes beyond
)
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds between two tries to reach the broker


class HandOffWorker(Worker):
    """Accepts tasks as any worker does, but hands off what is due instead of claiming it.

    The row stays the truth: what the broker does not pass on to somebody who claims it is handed
    off again.
    """

    def __init__(
        self, store: Store, engine: Engine, broker: Broker, *, max_queued: int, keep_days: float
    ) -> None:
        super().__init__(store, engine, max_queued=max_queued, keep_days=keep_days)
        self._broker = broker
        self._fresh: deque[HandOff] = deque(maxlen=MOST_FRESH)  # answered, and not handed off yet
        self.hand_off_after = stores.HAND_OFF_SECONDS
        self._asked_at = 0.0  # when the database was last asked for what is due
        self._checked_at = (
            time.monotonic()
        )  # when the broker was last asked whether it has lost its queue
        self._is_down = False
        self._pause = FIRST_PAUSE
        self._not_before = 0.0  # by the monotonic clock: when a broker that is down is tried again

    def state(self) -> dict[str, Any]:
        """Tell how many tasks wait and run in the whole fleet, and how the broker is."""
        broker = {"address": self._broker.address, "status": "down" if self._is_down else "up"}
        return {**self._counted, "broker": broker}

    async def _count(self) -> dict[str, Any]:
        return {**await super()._count(), "running": await self._store.count_running()}

    def start(self, tasks: Sequence[Task]) -> None:
        """Hand off those tasks that are due: their answer has gone."""
        if not self._is_down:
            now = datetime.now(UTC)
            due = [
                task
                for task in tasks
                if not task.follows and (task.run_at is None or task.run_at <= now)
            ]
            self._fresh.extend(HandOff(task.id, task.name, task.carrier) for task in due)
            self.look()

    async def drain(self, seconds: float) -> None:
        """Leave to others what is not handed off yet, and end as any worker does."""
        try:
            await self._leave_to_the_database(list(self._fresh))
        except DatabaseUnavailable:
            log.warning(
                "the database is away; others hand off within %g s what waits",
                stores.HAND_OFF_SECONDS,
            )
        await super().drain(seconds)

    def _promise(self, task: Task) -> None:
        """Promise nothing: no task has its slot here."""

    async def claim(self) -> bool:
        """Hand off a batch: first what was just answered, then what the database knows to be due."""
        if time.monotonic() < self._not_before:
            return False
        await self._find_lost()
        batch = [] if self._is_down else await self._next_batch()
        if not batch and not self._is_down:
            return False
        _, error = await asyncio.wrap_future(
            start_in_thread(lambda: self._broker.send(batch), name="hand-off")
        )
        if isinstance(error, BrokerUnavailable):
            self._begin_outage(error)
            await self._leave_to_the_database([*batch, *self._fresh])
        elif error is not None:
            raise error
        else:
            self._end_outage()
            if self._fresh or len(batch) == BATCH:
                self.look()
        return True

    async def _next_batch(self) -> list[HandOff]:
        now = time.monotonic()
        if (
            not self._fresh or now - self._asked_at > POLL_SECONDS
        ):  # a steady load must not hold up what is due
            self._asked_at = now
            if due := await self._store.due_for_hand_off(BATCH):
                fresh = [row for row in due if row.id not in self._refused.ids]
                return [HandOff(row.id, row.name, row.carrier) for row in fresh]
        return [self._fresh.popleft() for _ in range(min(BATCH, len(self._fresh)))]

    async def _find_lost(self) -> None:
        """Make due again what waits here although nothing waits at the broker: it has lost its queue."""
        if self._is_down or time.monotonic() - self._checked_at < stores.HAND_OFF_SECONDS:
            return
        self._checked_at = time.monotonic()
        is_empty, _ = await asyncio.wrap_future(
            start_in_thread(self._broker.is_empty, name="hand-off")
        )
        if is_empty and (lost := await self._store.hand_off_soon()):
            log.warning(
                "the broker at %s has no message of %d waiting tasks; telling it again",
                self._broker.address,
                lost,
            )

    def _end_outage(self) -> None:
        if self._is_down:
            log.info("the broker at %s is back", self._broker.address)
            self.look()
        self._is_down, self._pause, self.hand_off_after = (
            False,
            FIRST_PAUSE,
            stores.HAND_OFF_SECONDS,
        )

    def _begin_outage(self, error: BrokerUnavailable) -> None:
        if not self._is_down:
            log.warning(
                "the broker at %s is unavailable, trying again: %s", self._broker.address, error
            )
        self._is_down, self.hand_off_after = (
            True,
            0.0,
        )  # what is accepted now is for the loop, once the broker is back
        self._not_before = time.monotonic() + self._pause
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)

    async def _leave_to_the_database(self, unsent: list[HandOff]) -> None:
        self._fresh.clear()
        if unsent:
            await self._store.was_not_handed_off([each.id for each in unsent])
