"""The loop that claims what is due and runs it in this process's free slots.

What a worker knows in memory is a hint; the rows are the truth.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from afterwards.backlog import Backlog
from afterwards.heartbeat import Heartbeat
from afterwards.loop import Loop
from afterwards.model import Attempt, Lane, Outcome, Task
from afterwards.rate import Rate
from afterwards.refused import Refused
from afterwards.rows import task_of
from afterwards.settling import refuse, settle
from afterwards.slots import Slots
from afterwards.store.tasks import Store
from afterwards.turns import Free, Limit

POLL_SECONDS = 0.5  # how late a retry, or another process's task, may be noticed
LOOP_SECONDS = 0.3  # for the claim that is under way when the loop ends


class Worker:
    """Claims tasks under the heartbeat's identity, and settles them; `slots` is where they run."""

    def __init__(
        self, store: Store, slots: Slots, heartbeat: Heartbeat, backlog: Backlog, refused: Refused
    ) -> None:
        self.slots = slots
        self.rate = Rate()
        self._store = store
        self._heartbeat = heartbeat
        self._backlog = backlog
        self._refused = refused
        self._is_backlog = False  # the last claim could have taken more
        self._claiming = Loop(self.claim, POLL_SECONDS)

    def begin(self) -> None:
        """Start to claim."""
        self._claiming.begin()

    def wake(self) -> None:
        """Claim at once: somebody knows of a task."""
        self._claiming.wake()

    async def end(self) -> None:
        """Claim no more; what is being claimed at this moment is started."""
        await self._claiming.end(LOOP_SECONDS)

    def reserve(self, lane: Lane) -> str:
        """Reserve a slot for a new task; return the identity that claims it, "" for no slot."""
        identity = self._heartbeat.identity
        may_run = self._claiming.is_running() and self._heartbeat.vouches_for(identity)
        return identity if may_run and self.slots.reserve(lane) else ""

    def run(self, task: Task) -> None:
        """Run a task that is claimed, and settle it."""
        self.slots.start([[task]], self._settle)

    async def claim(self) -> bool:
        """Start what is due, as far as there are slots; return whether there may be more."""
        self._is_backlog = False
        claimer = self._heartbeat.identity
        for lane in Lane:
            if not self._heartbeat.vouches_for(claimer):
                return False
            rows, free = await self._claim(claimer, lane)
            if not self._heartbeat.vouches_for(claimer):
                return False
            self._backlog.claimed(len(rows))
            self._is_backlog |= len(rows) >= free[Limit.SLOTS]
            for row, error in self._start(rows):
                refuse(self._store, row, error)
        return self._is_backlog

    async def _claim(self, claimer: str, lane: Lane) -> tuple[Sequence[Any], Free]:
        free = self.slots.free(lane)
        if not any(free.values()):
            return [], free
        is_thread = lane is Lane.THREAD
        return await self._store.claim(claimer, in_thread=is_thread, free=free), free

    def _start(self, rows: Sequence[Any]) -> list[tuple[Any, Exception]]:
        """Start what was claimed; return what cannot be, with the reason."""
        unfit: list[tuple[Any, Exception]] = []
        # The same attempt runs here already where others thought this worker dead, and it has not
        # heard of that.
        running = self.slots.held() if rows else {}
        for row in rows:
            if row.id in self._refused.ids or running.get(row.id) == row.attempt:
                continue
            try:
                self.run(task_of(row, self._store.seal))
            except Exception as error:  # a type of an argument may raise anything
                unfit.append((row, error))
        return unfit

    def _settle(self, attempt: Attempt, leave: Callable[[], None]) -> None:
        settle(self._store, attempt, partial(self._settled, attempt, leave))

    def _settled(self, attempt: Attempt, leave: Callable[[], None]) -> None:
        if attempt.outcome is not Outcome.RELEASED:
            self.rate.count()
        leave()
        if self._is_backlog or attempt.task.is_followed or attempt.task.crashes:
            self.wake()
