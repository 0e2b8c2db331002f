"""The engine that runs attempts in this process, so many at a time, and drains before the process ends."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from contextvars import Context
from functools import partial

from afterwards import attempt as attempts
from afterwards import isolation
from afterwards.brokers import Ended, forgotten
from afterwards.model import Attempt, Outcome, Task
from afterwards.turns import ALONE_FROM, Free, Room
from afterwards.watchdog import ending_within

log = logging.getLogger("tasks")

SUSPECTS_AT_FIRST = (
    4  # at a time; each that ends without taking the process down makes room for one more
)
UNWINDING_SECONDS = (
    0.5  # what a cancelled attempt gets for its `finally` blocks; no platform waits much longer
)


Lane = bool | Room  # whether in a thread, or alone


class LocalEngine:
    """Runs coroutines up to `max_running` at a time and plain functions in up to `threads` threads.

    A task with more than one crash behind it runs in a process of its own, one of them at a time.

    They run in tasks of this engine, never in the request's: uvicorn waits for requests without end
    when it shuts down, and counts them against its limits.
    """

    def __init__(
        self, *, max_running: int, threads: int, timeout: float, surrounding: attempts.Surrounding
    ) -> None:
        self._total: dict[Lane, int] = {False: max_running, True: threads, Room.ALONE: 1}
        self._slots = {lane: asyncio.Semaphore(total) for lane, total in self._total.items()}
        self._taken = dict.fromkeys(self._total, 0)  # slots that are held or waited for
        self._suspects, self._most_suspects = 0, SUSPECTS_AT_FIRST
        self._timeout = timeout
        self._surrounding = surrounding
        self._isolation = isolation.Isolation()
        self._unfinished: dict[
            Task, asyncio.Task[None]
        ] = {}  # and what runs the sequence that each is in

    def start(self, sequences: Sequence[Sequence[Task]], ended: Ended = forgotten) -> None:
        loop = asyncio.get_running_loop()
        for sequence in sequences:
            # An empty context: what leaks from request to request, such as a span, must not leak
            # into a task.
            running = loop.create_task(self._run_in_order(sequence, ended), context=Context())
            for task in sequence:
                self._unfinished[task] = running
                self._taken[_lane(task)] += 1
                self._suspects += _is_suspect(task)

    def free(self, *, in_thread: bool) -> int:
        return max(0, self._total[in_thread] - self._taken[in_thread])

    def free_for_suspects(self) -> Free:
        return {
            Room.SUSPECTS: max(0, self._most_suspects - self._suspects),
            Room.ALONE: max(0, self._total[Room.ALONE] - self._taken[Room.ALONE]),
        }

    def stored(self) -> dict[str, int]:
        return {task.id: task.attempt for task in self._unfinished if task.stored}

    def cancel(self, id: str) -> None:
        for running in [running for task, running in self._unfinished.items() if task.id == id]:
            running.cancel()

    async def drain(self, seconds: float, cut_off: Callable[[Task], None]) -> None:
        if not self._unfinished:
            self._isolation.end()
            return
        log.info("draining: %d tasks get up to %g s to end", len(self._unfinished), seconds)
        with ending_within(seconds + 2 * UNWINDING_SECONDS):
            await asyncio.wait({*self._unfinished.values()}, timeout=seconds)
            if self._unfinished:
                await self._cut_off(cut_off)
        self._isolation.end()

    def load(self) -> dict[str, int]:
        running = sum(min(self._taken[lane], total) for lane, total in self._total.items())
        return {"running": running, "waiting": sum(self._taken.values()) - running}

    async def _cut_off(self, tell: Callable[[Task], None]) -> None:
        for task in self._unfinished:
            tell(task)
        sequences = {*self._unfinished.values()}
        for sequence in sequences:
            sequence.cancel()
        await asyncio.wait(sequences, timeout=UNWINDING_SECONDS)

    async def _run_in_order(self, sequence: Sequence[Task], ended: Ended) -> None:
        for task in sequence:
            if await self._run(task, ended) is Outcome.RELEASED:
                return

    async def _run(self, task: Task, ended: Ended) -> Outcome | None:
        attempt = Attempt(task)
        try:
            await self._slots[_lane(task)].acquire()
        except asyncio.CancelledError:
            self._forget(task)
            attempt.outcome = Outcome.RELEASED
            await ended(attempt)
            raise
        try:
            await self._attempt(attempt)
            await ended(attempt)
        finally:
            self._free(attempt)
        return attempt.outcome

    async def _attempt(self, attempt: Attempt) -> None:
        timeout = attempt.task.policy.timeout or self._timeout
        call = attempts.call
        if _lane(attempt.task) is Room.ALONE:
            call = partial(self._isolation.call, timeout=timeout)
            timeout += isolation.START_SECONDS
        await attempts.run(attempt, timeout=timeout, surrounding=self._surrounding, call=call)

    def _free(self, attempt: Attempt) -> None:
        if attempt.thread is None or attempt.thread.done():
            self._give_back(attempt.task)
            return
        # What the thread still does is nobody's attempt any more, but the slot is the thread's.
        self._unfinished.pop(attempt.task, None)
        loop = asyncio.get_running_loop()

        def give_back(_: object) -> None:
            if not loop.is_closed():
                loop.call_soon_threadsafe(self._give_back, attempt.task)

        attempt.thread.add_done_callback(give_back)

    def _give_back(self, task: Task) -> None:
        self._slots[_lane(task)].release()
        self._most_suspects += _is_suspect(task)
        self._forget(task)

    def _forget(self, task: Task) -> None:
        self._unfinished.pop(task, None)
        self._taken[_lane(task)] -= 1
        self._suspects -= _is_suspect(task)


# What `rooms_of` says, at the price of a comparison: these are asked eight times for each task.
def _lane(task: Task) -> Lane:
    return Room.ALONE if task.crashes >= ALONE_FROM else not task.is_async


def _is_suspect(task: Task) -> bool:
    return 0 < task.crashes < ALONE_FROM
