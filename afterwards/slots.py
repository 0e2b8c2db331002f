"""Runs attempts in this process, so many at a time, and drains before the process ends."""

import asyncio
import inspect
import logging
import os
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from contextvars import Context
from functools import partial
from typing import Any

from afterwards import attempt as attempts
from afterwards import isolation, server
from afterwards.mention import about
from afterwards.model import Attempt, Lane, Outcome, Task
from afterwards.time_limits import TimeLimits
from afterwards.tracing import Tracing
from afterwards.turns import ALONE_FROM, Free, Limit

log = logging.getLogger("tasks")

SUSPECTS_AT_FIRST = 4  # at a time; each that ends without a crash makes room for one more
LOOK_SECONDS = 0.1  # between two looks whether somebody wants the end at once
TELL_SECONDS = 5.0  # between two lines that say how long the end may take
UNWINDING_SECONDS = 0.5  # for the `finally` blocks of a cancelled attempt

_Running = asyncio.Task[None]
# Called with an attempt that has ended; it keeps its slot until what comes with it is called.
Settle = Callable[[Attempt, Callable[[], None]], None]


def forget(attempt: Attempt, leave: Callable[[], None]) -> None:
    """Keep nothing of an attempt that has ended: its task lives in memory only."""
    leave()


def tell_of_cut_off(task: Task) -> None:
    """Log that the shutdown cuts off the task."""
    fate = "given back, to be run again" if task.stored else "lost, because it lived in memory only"
    with about(task.id, task.carrier):
        log.warning("the shutdown cuts off %s %s; it is %s", task.name, task.id, fate)


class _Pool:
    """So many slots of one kind."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.held = 0
        self.reserved = 0  # for what will start soon
        self.waiting: deque[Task] = deque()  # the first of their sequences

    def free(self) -> int:
        return max(0, self.total - self.held - len(self.waiting) - self.reserved)


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
        self._pools = (self._coroutines, self._threads, self._alone)
        self._suspects, self._most_suspects = 0, SUSPECTS_AT_FIRST
        self._timeout = timeout
        self._span = partial(tracing.attempt, is_consumed=True) if is_consumed else tracing.attempt
        self._isolation = isolation.Isolation()
        self._limits = TimeLimits()
        # What was started and has not left, with what runs it, if it does not wait, and with what
        # of its sequence is left.
        self._unfinished: dict[Task, tuple[_Running | None, Sequence[Task], Settle]] = {}
        self._is_idle = asyncio.Event()  # for the drain

    def start(self, sequences: Sequence[Sequence[Task]], settle: Settle = forget) -> None:
        """Start the sequences side by side, and the tasks of one sequence one after another."""
        for sequence in sequences:
            for task in sequence:
                self._unfinished[task] = None, sequence, settle
                self._suspects += _is_suspect(task)
            self._enter(sequence[0])

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
        for task in [task for task in self._unfinished if task.id == id]:
            self._cut_off(task)

    async def drain(self, seconds: float, tell: Callable[[Task], None] = tell_of_cut_off) -> None:
        """Give what was started so many seconds to end, then `tell` of the rest and cut it off."""
        if self._unfinished:
            how = "; Ctrl-C again leaves at once" if os.isatty(0) else ""
            count = len(self._unfinished)
            log.info("draining: %d tasks get up to %g s to end%s", count, seconds, how)
            await self._wait_for_ends(seconds)
        for task in self._unfinished:
            tell(task)
        for pool in self._pools:
            while pool.waiting:
                self._give_up(pool.waiting.popleft())
        for task in list(self._unfinished):
            if task in self._unfinished:  # and not gone with the one before it
                self._cut_off(task)
        await self._until_idle(UNWINDING_SECONDS)
        self._isolation.end()

    async def _wait_for_ends(self, seconds: float) -> None:
        clock = asyncio.get_running_loop().time
        deadline = clock() + seconds
        told = seconds
        while self._unfinished and (left := deadline - clock()) > 0:
            if server.is_forced_to_stop():
                return
            await self._until_idle(min(left, LOOK_SECONDS))
            if self._unfinished and told - (left := deadline - clock()) >= TELL_SECONDS:
                told = left
                log.info("draining: %d tasks have %.0f s left", len(self._unfinished), left)

    async def _until_idle(self, seconds: float) -> None:
        if self._unfinished:
            self._is_idle.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._is_idle.wait()

    def load(self) -> dict[str, int]:
        """Count the tasks that are `running` and those that are `waiting` for a free slot."""
        running = sum(pool.held for pool in self._pools)
        return {"running": running, "waiting": sum(len(pool.waiting) for pool in self._pools)}

    def _enter(self, task: Task) -> None:
        pool = self._pool(task)
        pool.waiting.append(task)
        self._fill(pool)

    def _fill(self, pool: _Pool) -> None:
        while pool.waiting and pool.held < pool.total:
            pool.held += 1
            task = pool.waiting.popleft()
            _, sequence, settle = self._unfinished[task]
            # An empty context: what leaks from request to request, such as a span, must not leak
            # into a task.
            loop = asyncio.get_running_loop()
            running = loop.create_task(self._run(task, settle), context=Context())
            self._unfinished[task] = running, sequence, settle

    async def _run(self, task: Task, settle: Settle) -> None:
        attempt = Attempt(task)
        timeout, call = task.policy.timeout or self._timeout, attempts.call
        if task.crashes >= ALONE_FROM:
            call = partial(self._isolation.call, timeout=timeout)
            timeout += isolation.START_SECONDS
        span = self._span(attempt)
        await attempts.run(attempt, timeout=timeout, limits=self._limits, span=span, call=call)
        settle(attempt, partial(self._leave, attempt))

    def _leave(self, attempt: Attempt) -> None:
        task, thread = attempt.task, attempt.thread
        _, sequence, settle = self._unfinished.pop(task)
        if thread is None or thread.done():
            self._free(task)
        else:
            # What it still does is nobody's attempt any more, but the slot is the thread's.
            thread.add_done_callback(
                partial(_on_loop, asyncio.get_running_loop(), self._free, task)
            )
        if rest := sequence[1:]:
            if attempt.outcome is Outcome.RELEASED:
                self._forget(rest)
            else:
                self._unfinished |= dict.fromkeys(rest, (None, rest, settle))
                self._enter(rest[0])
        if not self._unfinished:
            self._is_idle.set()

    def _free(self, task: Task) -> None:
        pool = self._pool(task)
        pool.held -= 1
        if _is_suspect(task):
            self._suspects -= 1
            self._most_suspects += 1
        self._fill(pool)

    def _cut_off(self, task: Task) -> None:
        running, _, settle = self._unfinished[task]
        if running is None:
            with suppress(ValueError):  # it comes after another, which takes it along
                self._pool(task).waiting.remove(task)
                self._give_up(task)
            return
        running.cancel()
        if not _has_begun(running):
            attempt = Attempt(task, outcome=Outcome.RELEASED)  # it never will begin
            settle(attempt, partial(self._leave, attempt))

    def _give_up(self, task: Task) -> None:
        """Release a task that has not begun, and what comes after it."""
        _, sequence, settle = self._unfinished[task]
        self._forget(sequence)
        settle(Attempt(task, outcome=Outcome.RELEASED), lambda: None)

    def _forget(self, sequence: Sequence[Task]) -> None:
        for task in sequence:
            del self._unfinished[task]
            self._suspects -= _is_suspect(task)
        if not self._unfinished:
            self._is_idle.set()

    def _of_lane(self, lane: Lane) -> _Pool:
        return self._coroutines if lane is Lane.COROUTINE else self._threads

    # What `limits_of` says, at the price of a comparison: they are asked eight times for each task.
    def _pool(self, task: Task) -> _Pool:
        if task.crashes >= ALONE_FROM:
            return self._alone
        return self._coroutines if task.is_async else self._threads


def _has_begun(running: _Running) -> bool:
    coroutine: Any = running.get_coro()
    return inspect.getcoroutinestate(coroutine) != inspect.CORO_CREATED


def _on_loop(
    loop: asyncio.AbstractEventLoop, free: Callable[[Task], None], task: Task, _: object
) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(free, task)


def _is_suspect(task: Task) -> bool:
    return 0 < task.crashes < ALONE_FROM
