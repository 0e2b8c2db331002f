"""Runs attempts in this process, so many at a time, and drains before the process ends."""

import asyncio
import logging
import os
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from functools import partial

from afterwards import attempt as attempts
from afterwards import isolation, server
from afterwards.model import Attempt, Lane, Outcome, Task
from afterwards.tracing import Tracing
from afterwards.turns import ALONE_FROM, Free, Limit

log = logging.getLogger("tasks")

SUSPECTS_AT_FIRST = 4  # at a time; each that ends without a crash makes room for one more
LOOK_SECONDS = 0.1  # between two looks whether somebody wants the end at once
TELL_SECONDS = 5.0  # between two lines that say how long the end may take
UNWINDING_SECONDS = 0.5  # for the `finally` blocks of a cancelled attempt

Ended = Callable[[Attempt], Awaitable[None]]


async def forgotten(attempt: Attempt) -> None:
    """Keep nothing of an attempt that has ended: its task lives in memory only."""


def tell_of_cut_off(task: Task) -> None:
    """Log that the shutdown cuts off the task."""
    fate = "given back, to be run again" if task.stored else "lost, because it lived in memory only"
    log.warning("the shutdown cuts off %s %s; it is %s", task.name, task.id, fate)


class _Pool:
    """So many slots of one kind."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken = 0  # held, or waited for
        self.reserved = 0  # for what will start soon
        self.semaphore = asyncio.Semaphore(total)

    def free(self) -> int:
        return max(0, self.total - self.taken - self.reserved)


class Slots:
    """Runs coroutines up to `max_running` at a time and plain functions in up to `threads` threads.

    A task with more than one crash behind it runs in a process of its own, one of them at a time.

    Attempts run in tasks of this object, never in the request's: uvicorn waits for requests without
    end when it shuts down, and counts them against its limits.
    """

    def __init__(
        self,
        *,
        max_running: int,
        threads: int,
        timeout: float,
        tracing: Tracing,
        is_consumed: bool = False,
    ) -> None:
        self._coroutines, self._threads = _Pool(max_running), _Pool(threads)
        self._alone = _Pool(1)
        self._suspects, self._most_suspects = 0, SUSPECTS_AT_FIRST
        self._timeout = timeout
        self._span = partial(tracing.attempt, is_consumed=True) if is_consumed else tracing.attempt
        self._isolation = isolation.Isolation()
        # What is started and has not ended, with what runs the sequence that it is in.
        self._unfinished: dict[Task, asyncio.Task[None]] = {}

    def start(self, sequences: Sequence[Sequence[Task]], ended: Ended = forgotten) -> None:
        """Start the sequences side by side, and the tasks of one sequence one after another.

        `ended` is awaited with each attempt, while it still has its slot.
        """
        loop = asyncio.get_running_loop()
        for sequence in sequences:
            # An empty context: what leaks from request to request, such as a span, must not leak
            # into a task.
            running = loop.create_task(self._run_in_order(sequence, ended), context=Context())
            for task in sequence:
                self._unfinished[task] = running
                self._pool(task).taken += 1
                self._suspects += _is_suspect(task)

    def reserve(self, lane: Lane) -> bool:
        """Keep a slot free, if there is a free one, until it is unreserved."""
        pool = self._of_lane(lane)
        if not pool.free():
            return False
        pool.reserved += 1
        return True

    def unreserve(self, lane: Lane) -> None:
        """Keep the reserved slot no longer: what it was for starts now, or never."""
        self._of_lane(lane).reserved -= 1

    def free(self, lane: Lane) -> Free:
        """Count how many more tasks may be claimed for a lane, by what bounds them."""
        return {
            Limit.SLOTS: self._of_lane(lane).free(),
            Limit.SUSPECTS: max(0, self._most_suspects - self._suspects),
            Limit.ALONE: self._alone.free(),
        }

    def held(self) -> dict[str, int]:
        """Return the ids of the stored tasks that have not ended, with their attempts' numbers."""
        return {task.id: task.attempt for task in self._unfinished if task.stored}

    def cancel(self, id: str) -> None:
        """Cut off the task, if it runs here and can be."""
        for running in [running for task, running in self._unfinished.items() if task.id == id]:
            running.cancel()

    async def drain(self, seconds: float, tell: Callable[[Task], None] = tell_of_cut_off) -> None:
        """Give what was started so many seconds to end, then `tell` of the rest and cut it off."""
        if self._unfinished:
            how = "; Ctrl-C again leaves at once" if os.isatty(0) else ""
            count = len(self._unfinished)
            log.info("draining: %d tasks get up to %g s to end%s", count, seconds, how)
            await self._wait_for_ends(seconds)
        for task in self._unfinished:
            tell(task)
        if sequences := {*self._unfinished.values()}:
            for sequence in sequences:
                sequence.cancel()
            await asyncio.wait(sequences, timeout=UNWINDING_SECONDS)
        self._isolation.end()

    async def _wait_for_ends(self, seconds: float) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        told = deadline
        while self._unfinished and (left := deadline - clock()) > 0:
            if server.is_forced_to_stop():
                return
            await asyncio.wait({*self._unfinished.values()}, timeout=min(left, LOOK_SECONDS))
            if self._unfinished and told - (left := deadline - clock()) >= TELL_SECONDS:
                told = left
                log.info("draining: %d tasks have %.0f s left", len(self._unfinished), left)

    def load(self) -> dict[str, int]:
        """Count the tasks that are `running` and those that are `waiting` for a free slot."""
        pools = (self._coroutines, self._threads, self._alone)
        running = sum(min(pool.taken, pool.total) for pool in pools)
        return {"running": running, "waiting": sum(pool.taken for pool in pools) - running}

    async def _run_in_order(self, sequence: Sequence[Task], ended: Ended) -> None:
        for task in sequence:
            attempt = await self._run(task, ended)
            if attempt.outcome is Outcome.RELEASED:
                return

    async def _run(self, task: Task, ended: Ended) -> Attempt:
        attempt = Attempt(task)
        try:
            await self._pool(task).semaphore.acquire()
        except asyncio.CancelledError:
            self._forget(task)
            attempt.outcome = Outcome.RELEASED
            await ended(attempt)
            raise
        try:
            await self._attempt(attempt)
            await ended(attempt)
        finally:
            self._leave(attempt)
        return attempt

    async def _attempt(self, attempt: Attempt) -> None:
        timeout = attempt.task.policy.timeout or self._timeout
        call = attempts.call
        if attempt.task.crashes >= ALONE_FROM:
            call = partial(self._isolation.call, timeout=timeout)
            timeout += isolation.START_SECONDS
        await attempts.run(attempt, timeout=timeout, span=self._span(attempt), call=call)

    def _leave(self, attempt: Attempt) -> None:
        if attempt.thread is None or attempt.thread.done():
            self._release(attempt.task)
            return
        # What the thread still does is nobody's attempt any more, but the slot is the thread's.
        self._unfinished.pop(attempt.task, None)
        loop = asyncio.get_running_loop()

        def release(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._release, attempt.task)

        attempt.thread.add_done_callback(release)

    def _release(self, task: Task) -> None:
        self._pool(task).semaphore.release()
        self._most_suspects += _is_suspect(task)
        self._forget(task)

    def _forget(self, task: Task) -> None:
        self._unfinished.pop(task, None)
        self._pool(task).taken -= 1
        self._suspects -= _is_suspect(task)

    def _of_lane(self, lane: Lane) -> _Pool:
        return self._coroutines if lane is Lane.COROUTINE else self._threads

    # What `limits_of` says, at the price of a comparison: they are asked eight times for each task.
    def _pool(self, task: Task) -> _Pool:
        if task.crashes >= ALONE_FROM:
            return self._alone
        return self._coroutines if task.is_async else self._threads


def _is_suspect(task: Task) -> bool:
    return 0 < task.crashes < ALONE_FROM
