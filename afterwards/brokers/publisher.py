"""The loop that publishes what is due: it tells a broker which tasks its workers should claim."""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any, TypeVar

from afterwards.brokers import Broker, BrokerUnavailable, Message
from afterwards.loop import Loop
from afterwards.model import Task
from afterwards.refused import Refused
from afterwards.store import tasks as stores
from afterwards.store.failures import DatabaseUnavailable
from afterwards.store.tasks import Store
from afterwards.threads import start_in_thread

log = logging.getLogger("tasks")

T = TypeVar("T")

POLL_SECONDS = 0.5  # how late a retry, or another process's task, may be noticed
LOOP_SECONDS = 0.3  # for the batch that is under way when the loop ends
BATCH = 200  # messages in one visit to the thread that publishes
MOST_FRESH = 10_000  # messages held in memory; the database knows of what comes beyond
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 5.0  # seconds between two tries to reach the broker


class Publisher:
    """Publishes what was just answered, and what the database knows to be due.

    The row stays the truth: what the broker does not bring to somebody who claims it is published
    again.
    """

    def __init__(self, store: Store, broker: Broker, refused: Refused) -> None:
        self._store = store
        self._broker = broker
        self._refused = refused
        self._fresh: deque[Message] = deque(maxlen=MOST_FRESH)  # answered, not published yet
        # For so many seconds from its commit the loop leaves a new task to `publish`.
        self.publish_after = 0.0
        self._asked_at = 0.0  # when the database was last asked for what is due
        # When the broker was last asked whether it has lost its queue.
        self._checked_at = time.monotonic()
        self._is_down = False
        self._pause = FIRST_PAUSE
        self._not_before = 0.0  # monotonic: when a broker that is down is tried again
        self._publishing = Loop(self.step, POLL_SECONDS)

    def begin(self) -> None:
        """Start to publish what is due."""
        if not self._publishing.is_running():
            self._publishing.begin()
            self.publish_after = stores.PUBLISH_AGAIN_SECONDS

    def wake(self) -> None:
        """Publish at once: somebody knows of a task."""
        self._publishing.wake()

    def state(self) -> dict[str, Any]:
        """Tell how the broker is."""
        status = "down" if self._is_down else "up"
        return {"broker": {"address": self._broker.address, "status": status}}

    def publish(self, tasks: Sequence[Task]) -> None:
        """Publish those tasks that are due: their answer has gone."""
        if self._is_down:
            return
        now = datetime.now(UTC)
        self._fresh.extend(
            Message(task.id, task.name, task.carrier)
            for task in tasks
            if not task.follows and (task.run_at is None or task.run_at <= now)
        )
        self.wake()

    async def end(self) -> None:
        """Leave to others what is not published yet."""
        try:
            await self._leave_to_the_database(list(self._fresh))
        except DatabaseUnavailable:
            log.warning(
                "the database is away; others publish within %g s what waits",
                stores.PUBLISH_AGAIN_SECONDS,
            )
        await self._publishing.end(LOOP_SECONDS)

    async def step(self) -> None:
        """Publish a batch: first what was just answered, then what the database knows to be due."""
        if time.monotonic() < self._not_before:
            return
        await self._find_lost()
        batch = [] if self._is_down else await self._next_batch()
        if not batch and not self._is_down:
            return
        try:
            await _in_thread(lambda: self._broker.publish(batch))
        except BrokerUnavailable as error:
            self._begin_outage(error)
            await self._leave_to_the_database([*batch, *self._fresh])
        else:
            self._end_outage()
            if self._fresh or len(batch) == BATCH:
                self.wake()

    async def _next_batch(self) -> list[Message]:
        now = time.monotonic()
        # A steady load must not hold up what is due.
        if not self._fresh or now - self._asked_at > POLL_SECONDS:
            self._asked_at = now
            if due := await self._store.due_to_publish(BATCH):
                wanted = [row for row in due if row.id not in self._refused.ids]
                return [Message(row.id, row.name, row.carrier) for row in wanted]
        return [self._fresh.popleft() for _ in range(min(BATCH, len(self._fresh)))]

    async def _find_lost(self) -> None:
        """Make due again what waits here if nothing waits there: the broker lost its queue."""
        if self._is_down or time.monotonic() - self._checked_at < stores.PUBLISH_AGAIN_SECONDS:
            return
        self._checked_at = time.monotonic()
        try:
            is_empty = await _in_thread(self._broker.is_empty)
        except BrokerUnavailable:
            return  # the next batch will tell
        if is_empty and (lost := await self._store.publish_soon()):
            log.warning(
                "the broker at %s has no message of %d waiting tasks; telling it again",
                self._broker.address,
                lost,
            )

    def _end_outage(self) -> None:
        if self._is_down:
            log.info("the broker at %s is back", self._broker.address)
            self.wake()
        self._is_down, self._pause = False, FIRST_PAUSE
        self.publish_after = stores.PUBLISH_AGAIN_SECONDS

    def _begin_outage(self, error: BrokerUnavailable) -> None:
        if not self._is_down:
            log.warning(
                "the broker at %s is unavailable, trying again: %s", self._broker.address, error
            )
        # What is accepted now is for the loop, once the broker is back.
        self._is_down, self.publish_after = True, 0.0
        self._not_before = time.monotonic() + self._pause
        self._pause = min(LONGEST_PAUSE, 2 * self._pause)

    async def _leave_to_the_database(self, unsent: list[Message]) -> None:
        self._fresh.clear()
        if unsent:
            await self._store.not_published([each.id for each in unsent])


async def _in_thread(call: Callable[[], T]) -> T:
    result: T
    result, error = await asyncio.wrap_future(start_in_thread(call, name="publisher"))
    if error is not None:
        raise error
    return result
