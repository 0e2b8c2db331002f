"""The engine for tests: it runs nothing by itself, and what it was given one after another when it is asked to."""

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from contextvars import Context

from afterwards import attempt as attempts
from afterwards.brokers import Ended, forgotten
from afterwards.model import Attempt, Outcome, Task
from afterwards.turns import Free, Room


class InlineEngine:
    """Holds the tasks that were started until `run` is awaited.

    It has one slot, so that a worker claims a task only when the one before has been settled.
    """

    def __init__(self, *, timeout: float, surrounding: attempts.Surrounding) -> None:
        self._timeout = timeout
        self._surrounding = surrounding
        self._held: deque[tuple[Task, Ended]] = deque()
        self._running: tuple[Task, asyncio.Task[None]] | None = None

    def start(self, sequences: Sequence[Sequence[Task]], ended: Ended = forgotten) -> None:
        self._held.extend((task, ended) for sequence in sequences for task in sequence)

    async def run(self) -> list[Attempt]:
        """Run what was started, and return the attempts in the order in which they ran.

        Who awaits this waits for each of them; if that is cancelled, so is the attempt that runs.
        """
        ran = []
        while self._held:
            task, ended = self._held.popleft()
            ran.append(await self._run(task, ended))
        return ran

    def free(self, *, in_thread: bool) -> int:
        return 0 if self._held or self._running else 1

    def free_for_suspects(self) -> Free:
        return dict.fromkeys((Room.SUSPECTS, Room.ALONE), self.free(in_thread=False))

    def stored(self) -> dict[str, int]:
        return {task.id: task.attempt for task in self._unfinished() if task.stored}

    def cancel(self, id: str) -> None:
        self._held = deque((task, ended) for task, ended in self._held if task.id != id)
        if self._running and self._running[0].id == id:
            self._running[1].cancel()

    async def drain(self, seconds: float, cut_off: Callable[[Task], None]) -> None:
        for task in (
            self._unfinished()
        ):  # they would never end by themselves, so there is nothing to wait for
            cut_off(task)
            self.cancel(task.id)

    def load(self) -> dict[str, int]:
        return {"running": int(self._running is not None), "waiting": len(self._held)}

    def _unfinished(self) -> list[Task]:
        return [*([self._running[0]] if self._running else []), *(task for task, _ in self._held)]

    async def _run(self, task: Task, ended: Ended) -> Attempt:
        attempt = Attempt(task)
        timeout = task.policy.timeout or self._timeout
        run = attempts.run(attempt, timeout=timeout, surrounding=self._surrounding)
        # An empty context, as anywhere: what works here only because it found the test's would fail
        # in the service.
        running = asyncio.create_task(run, context=Context())
        self._running = task, running
        try:
            await running
            await ended(attempt)
        finally:
            self._running = None
        this = asyncio.current_task()
        if attempt.outcome is Outcome.RELEASED and this is not None and this.cancelling():
            raise asyncio.CancelledError  # it was meant for the caller
        return attempt
