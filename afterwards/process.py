"""One process's part in the work, put together: it accepts tasks, and runs or publishes them."""

import time
from collections.abc import Sequence
from typing import Any

from afterwards import rescue
from afterwards.attachments import Attachments
from afterwards.backlog import Backlog
from afterwards.brokers import Broker
from afterwards.brokers.publisher import Publisher
from afterwards.intake import Admit, Intake
from afterwards.limits import Limits
from afterwards.loop import Loop
from afterwards.maintenance import Maintenance
from afterwards.model import Task
from afterwards.refused import Refused
from afterwards.slots import Slots
from afterwards.store.tasks import Store
from afterwards.tracing import NO_TRACING, Tracing
from afterwards.worker import POLL_SECONDS, Worker

ANSWER_SECONDS = 1.0  # a task whose answer has not gone by then starts all the same
MOST_DEAD = 10_000  # that are counted: nobody acts otherwise on more
MOST_COUNTED = 250_000  # waiting tasks, or twice `max_queued`; to count more costs too much


class Process:
    """Accepts tasks into the database, and has them run.

    With a `broker` it publishes what is due, for workers elsewhere. Otherwise it claims and runs
    what is due, unless `run_tasks` is False: then it only accepts. What lives in memory runs here
    in any case. Any mixture of such processes may share a database. What a request does is the
    intake's: `accept` or `accept_within`, and `start` once its answer has gone.
    """

    def __init__(
        self,
        store: Store,
        limits: Limits,
        *,
        tracing: Tracing = NO_TRACING,
        broker: Broker | None = None,
        run_tasks: bool = True,
        slots: Slots | None = None,
        admit: Admit | None = None,
        attachments: Attachments | None = None,
    ) -> None:
        self.store, self._tracing = store, tracing
        self.slots = slots or Slots(
            max_running=limits.max_running,
            threads=limits.threads,
            timeout=limits.timeout,
            tracing=tracing,
        )
        self._maintenance = Maintenance(
            store,
            limits,
            held=self._held,
            cancel=self.cancel,
            found=self.wake,
            beaten=self._beaten,
            attachments=attachments,
        )
        self._most_counted = max(MOST_COUNTED, 2 * limits.max_queued)
        self.backlog = Backlog(limits.max_queued, self._settled_per_second)
        self._fleet_rate = 0.0  # how many tasks all workers settle a second, while too many wait
        self._counted: dict[str, Any] = {}  # in the database, at the last beat
        self._refused = Refused(store)
        self._withdrawing = Loop(self._withdraw_refused, POLL_SECONDS)
        self.publisher = Publisher(store, broker, self._refused) if broker else None
        claims = run_tasks and not broker
        beats = self._maintenance.heartbeat
        self.worker = (
            Worker(store, self.slots, beats, self.backlog, self._refused) if claims else None
        )
        self._intake = intake = Intake(
            store,
            self.backlog,
            self._refused,
            worker=self.worker,
            publisher=self.publisher,
            admit=admit,
        )
        self.accept, self.accept_within = intake.accept, intake.accept_within
        self.start = intake.start

    async def begin(self) -> None:
        """Make this process known, and start; if the database is away, as soon as it is back."""
        await self._maintenance.first_beat()
        self._maintenance.begin()
        self._withdrawing.begin()

    def start_in_memory(self, groups: Sequence[Sequence[Task]]) -> None:
        """Start tasks that are not stored: groups side by side, a group's tasks in order."""
        self.slots.start(groups)

    def wake(self) -> None:
        """Claim, or publish, at once: somebody knows of a task."""
        if loop := self.worker or self.publisher:
            loop.wake()

    def cancel(self, id: str) -> None:
        """Cut off the task, if it runs here, or is about to."""
        self._intake.cancel(id)
        self.slots.cancel(id)

    async def drain(self, seconds: float) -> None:
        """Claim no more, give what runs so many seconds, and give the rest back at once."""
        if not self._maintenance.is_running():
            return
        await self._maintenance.end_upkeep()
        if loop := self.worker or self.publisher:
            await loop.end()
        self._intake.start_committed()
        await self.slots.drain(seconds)
        # Not before: a worker that drains is alive.
        await self._maintenance.end(before_release=self._withdraw_the_last)

    def is_well(self) -> bool:
        """Return whether the last beat reached the database, and what was committed since."""
        return self._maintenance.is_well() and not self.store.is_refused(rescue.DEAD_SECONDS)

    def state(self) -> dict[str, Any]:
        """Tell how many tasks wait and run, and for how long (s) the oldest has been due.

        A worker's process tells of its own slots, and how many settle a second; any other tells of
        the whole fleet. What only the database knows is as of the last beat: nobody waits for it.
        """
        if self.worker:
            rate = round(self.worker.rate.per_second(), 1)
            return {**self._counted, "running": self.slots.load()["running"], "rate": rate}
        return {**self._counted, **(self.publisher.state() if self.publisher else {})}

    async def _beaten(self) -> None:
        if loop := self.worker or self.publisher:
            loop.begin()
        # A response that broke off before its background ran has left its tasks behind.
        self._intake.start_committed(before=time.monotonic() - ANSWER_SECONDS)
        await self.backlog.recount(lambda: self.store.count_due(self._most_counted))
        self._fleet_rate = await self.store.settle_rate() if self.backlog.is_full() else 0.0
        oldest = await self.store.oldest_waiting()
        counted = {"queued": self.backlog.waiting(), "oldest_waiting": round(oldest, 3)}
        if self._tracing is not NO_TRACING:
            dead = await self.store.count_dead(MOST_DEAD)
            self._tracing.tell(self, {**counted, "dead": dead})
        if self.worker is None:
            counted["running"] = await self.store.count_running()
        self._counted = counted

    def _settled_per_second(self) -> float:
        return max(self.worker.rate.per_second() if self.worker else 0.0, self._fleet_rate)

    def _held(self) -> set[str]:
        return {*self.slots.held(), *self._intake.held()}

    async def _withdraw_refused(self) -> None:
        await self._refused.withdraw(self._maintenance.heartbeat.identity)

    async def _withdraw_the_last(self) -> None:
        await self._withdrawing.end(0)
        await self._withdraw_refused()
