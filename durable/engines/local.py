"""The engine that runs attempts in this process, so many at a time, and drains before the process ends."""

import asyncio
import logging
from collections.abc import Sequence
from contextvars import Context

import anyio

from durable import attempt as attempts
from durable.model import Attempt, Task
from durable.watchdog import ending_within

log = logging.getLogger("tasks")

UNWINDING_SECONDS = 0.5  # what a cancelled attempt gets for its `finally` blocks; no platform waits much longer


class LocalEngine:
    """Runs coroutines up to `max_running` at a time and plain functions in up to `threads` threads.

    They run in tasks of this engine, never in the request's: uvicorn waits for requests without end when it shuts
    down, and counts them against its limits.
    """

    def __init__(self, *, max_running: int, threads: int, timeout: float, surrounding: attempts.Surrounding) -> None:
        self._coroutines = anyio.CapacityLimiter(max_running)
        self._threads = anyio.CapacityLimiter(threads)
        self._timeout = timeout
        self._surrounding = surrounding
        self._sequences: set[asyncio.Task[None]] = set()
        self._unfinished: dict[str, Task] = {}

    def start(self, sequences: Sequence[Sequence[Task]]) -> None:
        for sequence in sequences:
            self._unfinished.update((task.id, task) for task in sequence)
            # An empty context: what leaks from request to request, such as a span, must not leak into a task.
            running = asyncio.create_task(self._run_in_order(sequence), context=Context())
            self._sequences.add(running)
            running.add_done_callback(self._sequences.discard)

    async def drain(self, seconds: float) -> None:
        if not self._sequences:
            return
        log.info("draining: %d tasks get up to %g s to end", len(self._unfinished), seconds)
        with ending_within(seconds + 2 * UNWINDING_SECONDS):
            await asyncio.wait(self._sequences, timeout=seconds)
            if self._sequences:
                await self._cut_off(seconds)

    def load(self) -> dict[str, int]:
        slots = [limiter.statistics() for limiter in (self._coroutines, self._threads)]
        return {
            "running": sum(each.borrowed_tokens for each in slots),
            "waiting": sum(each.tasks_waiting for each in slots),
        }

    async def _cut_off(self, seconds: float) -> None:
        for task in self._unfinished.values():
            log.warning("%s %s is lost: the shutdown cut it off after %g s", task.name, task.id, seconds)
        for sequence in self._sequences:
            sequence.cancel()
        await asyncio.wait(self._sequences, timeout=UNWINDING_SECONDS)

    async def _run_in_order(self, sequence: Sequence[Task]) -> None:
        for task in sequence:
            await self._run(task)

    async def _run(self, task: Task) -> None:
        limiter = self._coroutines if task.is_async else self._threads
        await limiter.acquire_on_behalf_of(task)
        attempt = Attempt(task)
        try:
            await attempts.run(attempt, timeout=self._timeout, surrounding=self._surrounding)
        finally:
            self._unfinished.pop(task.id)
            self._free(limiter, attempt)

    def _free(self, limiter: anyio.CapacityLimiter, attempt: Attempt) -> None:
        if attempt.thread is None or attempt.thread.done():
            limiter.release_on_behalf_of(attempt.task)
            return
        loop = asyncio.get_running_loop()

        def release(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(limiter.release_on_behalf_of, attempt.task)

        attempt.thread.add_done_callback(release)
