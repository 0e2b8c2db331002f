"""Accepts tasks: what a request waits for before its answer, and starts after it."""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext
from typing import Any

from afterwards.backlog import Backlog
from afterwards.brokers.publisher import Publisher
from afterwards.model import Task
from afterwards.refused import Refused
from afterwards.rows import check, row_of
from afterwards.store.database import Connection
from afterwards.store.failures import DatabaseUnavailable, OutcomeUnknown
from afterwards.store.given import NewRow
from afterwards.store.tasks import Store
from afterwards.worker import Worker

COMMITTING = math.inf  # instead of the moment from which on a task waits for its answer to go
UNCOUNTED = nullcontext()  # for tasks that have slots, as most have

# Asked before tasks are accepted; it refuses them all by raising a `Refused`.
Admit = Callable[[Sequence[Task]], Awaitable[None]]


class Intake:
    """Stores tasks: claimed at once where a worker of this process has a free slot for them.

    Where there is a publisher it publishes them; where there is neither, others run them.
    """

    def __init__(
        self,
        store: Store,
        backlog: Backlog,
        refused: Refused,
        *,
        worker: Worker | None,
        publisher: Publisher | None,
        admit: Admit | None = None,
    ) -> None:
        self._store = store
        self._backlog = backlog
        self._refused = refused
        self._worker = worker
        self._publisher = publisher
        self._admit = admit
        # They have a slot, and start when their answers have gone; with the moment of their commit.
        self._reserved: dict[str, tuple[Task, float]] = {}

    async def accept(self, tasks: Sequence[Task]) -> None:
        """Store the tasks in one commit.

        Raises `Overloaded`, `ArgumentsRefused` or `DatabaseUnavailable`: then none is stored, or
        ever runs.
        """
        if self._admit is not None:
            await self._admit(tasks)
        self._backlog.refuse_excess(sum(not task.waits for task in tasks))
        checked = [(task, *check(task)) for task in tasks]
        after = self._publisher.publish_after if self._publisher else 0.0
        rows, waiting, seal = [], 0, self._store.seal
        for task, kwargs, text in checked:
            task.stored = True
            worker = self._reserve(task, kwargs)
            waiting += not (worker or task.waits)
            rows.append(row_of(task, text, worker=worker, publish_after=after, seal=seal))
        with self._backlog.reserved(waiting) if waiting else UNCOUNTED:
            await self._commit(rows)

    async def accept_within(self, connection: Connection, tasks: Sequence[Task]) -> None:
        """Store the tasks in the caller's transaction; otherwise as `accept`."""
        if self._admit is not None:
            await self._admit(tasks)
        count = sum(not task.waits for task in tasks)
        self._backlog.refuse_excess(count)
        # Due at once for every publisher: nobody here knows when the caller commits.
        rows = [row_of(task, check(task)[1], seal=self._store.seal) for task in tasks]
        with self._backlog.reserved(count):
            await self._store.enqueue_within(connection, rows)
        for task in tasks:
            task.stored = True

    def start(self, tasks: Sequence[Task]) -> None:
        """Start those tasks that have a slot, have the others claimed: their answer has gone."""
        if self._publisher:
            self._publisher.publish(tasks)
            return
        for task in tasks:
            self._start(task.id)

    def start_committed(self, before: float = COMMITTING) -> None:
        """Start what was committed before that moment, whether or not its answer has gone."""
        for id, (_, committed_at) in list(self._reserved.items()):
            if committed_at < before:
                self._start(id)

    def cancel(self, id: str) -> Task | None:
        """Release the slot that the task has, if it has one."""
        task, _ = self._reserved.pop(id, (None, 0.0))
        if task and self._worker:
            self._worker.slots.unreserve(task.lane)
        return task

    def held(self) -> set[str]:
        """List the tasks that this process is about to start, or that are never to run."""
        return {*self._reserved, *self._refused.ids}

    def _reserve(self, task: Task, kwargs: dict[str, Any]) -> str:
        """Reserve a slot for a task that is due; return whose claim it is stored under, if any."""
        if task.waits or self._worker is None:
            return ""
        if identity := self._worker.reserve(task.lane):
            # As `task_of` would make it of its row.
            task.args, task.kwargs, task.worker = (), kwargs, identity
            self._reserved[task.id] = task, COMMITTING
        return identity

    def _start(self, id: str) -> None:
        if self._worker is None:
            return
        if task := self.cancel(id):
            self._worker.run(task)
        else:
            self._worker.wake()

    async def _commit(self, rows: Sequence[NewRow]) -> None:
        try:
            await self._store.enqueue(rows)
        except BaseException as error:
            for row in rows:
                self.cancel(row.id)
            if isinstance(error, OutcomeUnknown):  # what is withdrawn was never done
                self._refused.add(error, rows)
                raise DatabaseUnavailable(str(error)) from error
            if isinstance(error, asyncio.CancelledError):
                self._refuse_after_commit(rows)
            raise
        now = time.monotonic()
        for row in rows:
            if found := self._reserved.get(row.id):
                self._reserved[row.id] = found[0], now

    def _refuse_after_commit(self, rows: Sequence[NewRow]) -> None:
        after = asyncio.ensure_future(self._store.enqueue([]))  # done when what was cut off is
        after.add_done_callback(lambda after: self._refused.add(after.exception() or after, rows))
