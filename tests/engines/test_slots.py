"""The slots: how many run at a time, what a failure touches, and how they drain."""

import asyncio
import inspect
import logging
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from afterwards.model import Attempt, Lane, Outcome, Policy, Task, new_task_id
from afterwards.slots import Slots
from afterwards.tracing import NoTracing
from afterwards.turns import Limit

pytestmark = pytest.mark.anyio


class Ended(NoTracing):
    """A tracing that keeps every attempt, and tells when so many have ended."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self._changed = asyncio.Condition()
        self._waking: set[asyncio.Task[None]] = set()

    @contextmanager
    def attempt(self, attempt: Attempt, *, is_consumed: bool = False) -> Iterator[None]:
        yield
        self.attempts.append(attempt)
        waking = asyncio.create_task(self._wake())
        self._waking.add(waking)
        waking.add_done_callback(self._waking.discard)

    async def wait_for(self, count: int) -> list[Outcome | None]:
        async with asyncio.timeout(5), self._changed:
            await self._changed.wait_for(lambda: len(self.attempts) >= count)
        return [attempt.outcome for attempt in self.attempts]

    async def _wake(self) -> None:
        async with self._changed:
            self._changed.notify_all()


@pytest.fixture
def ended() -> Ended:
    return Ended()


@pytest.fixture
async def slots(ended: Ended) -> AsyncIterator[Slots]:
    slots = Slots(max_running=2, threads=1, timeout=30, tracing=ended)
    yield slots
    await slots.drain(0, nobody)


def task(function: Callable[..., Any], *args: Any) -> Task:
    return Task(
        new_task_id(), function.__name__, function, inspect.iscoroutinefunction(function), args
    )


def nobody(task: Task) -> None:
    pass


async def returns() -> str:
    return "a result"


async def fails() -> None:
    raise ValueError("as asked")


async def exits() -> None:
    sys.exit(3)


async def cancels_itself() -> None:
    raise asyncio.CancelledError


def stops_an_iteration() -> None:
    raise StopIteration


async def hangs() -> None:
    await asyncio.Event().wait()


@pytest.mark.parametrize(
    ("function", "outcome"),
    [
        (returns, Outcome.SUCCEEDED),
        (fails, Outcome.FAILED),
        (exits, Outcome.FAILED),
        (cancels_itself, Outcome.CANCELLED),
        (stops_an_iteration, Outcome.FAILED),
    ],
)
async def test_every_end_is_an_outcome(
    slots: Slots, ended: Ended, function: Callable[..., Any], outcome: Outcome
) -> None:
    slots.start([[task(function)]])
    assert await ended.wait_for(1) == [outcome]


async def test_failures_are_logged_once_with_traceback(
    slots: Slots, ended: Ended, caplog: pytest.LogCaptureFixture
) -> None:
    failing = task(fails)
    slots.start([[failing]])
    await ended.wait_for(1)
    [record] = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert "fails failed after" in record.getMessage()
    assert record.exc_info is not None
    assert "as asked" in str(record.exc_info[1])
    assert getattr(record, "task_id", "") == failing.id


async def test_failing_tasks_do_not_stop_siblings(slots: Slots, ended: Ended) -> None:
    slots.start([[task(fails)], [task(returns)], [task(exits)], [task(returns)]])
    assert (
        sorted(str(outcome) for outcome in await ended.wait_for(4))
        == ["failed"] * 2 + ["succeeded"] * 2
    )


async def test_the_time_limit_ends_hanging_attempts(ended: Ended) -> None:
    slots = Slots(max_running=1, threads=1, timeout=0.05, tracing=ended)
    slots.start([[task(hangs)]])
    assert await ended.wait_for(1) == [Outcome.TIMED_OUT]


async def test_each_is_cut_off_in_time(slots: Slots, ended: Ended) -> None:
    first, second, quick = task(hangs), task(hangs), task(hangs)
    first.policy = second.policy = Policy(timeout=0.3)
    quick.policy = Policy(timeout=0.05)
    slots = Slots(max_running=3, threads=1, timeout=30, tracing=ended)
    slots.start([[first]])
    await asyncio.sleep(0.15)
    slots.start([[second], [quick]])
    assert await ended.wait_for(3) == [Outcome.TIMED_OUT] * 3
    assert [attempt.task for attempt in ended.attempts] == [quick, first, second]
    began, ended_at = ended.attempts[2].started_at, time.time()
    assert ended_at - began >= 0.29  # its own time, and not what the first had left


async def test_a_tasks_own_timeout_just_fails(slots: Slots, ended: Ended) -> None:
    async def times_out_inside() -> None:
        async with asyncio.timeout(0.01):
            await hangs()

    slots.start([[task(times_out_inside)]])
    assert await ended.wait_for(1) == [Outcome.FAILED]


async def test_excess_tasks_wait_for_a_slot(slots: Slots) -> None:
    slots.start([[task(hangs)] for _ in range(5)])
    await asyncio.sleep(0)  # one turn of the loop, for the attempts to take their slots
    assert slots.load() == {"running": 2, "waiting": 3}


async def test_one_sequences_tasks_run_in_turn(slots: Slots, ended: Ended) -> None:
    seen: list[str] = []

    async def first() -> None:
        await asyncio.sleep(0.01)
        seen.append("first")
        raise ValueError("which must not stop the second")

    async def second() -> None:
        seen.append("second")

    slots.start([[task(first), task(second)]])
    await ended.wait_for(2)
    assert seen == ["first", "second"]


async def test_different_sequences_run_side_by_side(slots: Slots, ended: Ended) -> None:
    met = asyncio.Barrier(2)

    async def meets() -> None:
        await met.wait()

    slots.start([[task(meets)], [task(meets)]])
    assert await ended.wait_for(2) == [Outcome.SUCCEEDED] * 2


async def test_only_plain_functions_run_in_threads(slots: Slots, ended: Ended) -> None:
    threads: list[threading.Thread] = []

    def plain() -> None:
        threads.append(threading.current_thread())

    async def coroutine() -> None:
        threads.append(threading.current_thread())

    slots.start([[task(plain), task(coroutine)]])
    await ended.wait_for(2)
    assert threads[0] is not threading.main_thread()
    assert threads[1] is threading.main_thread()


async def test_threads_outliving_attempts_keep_their_slot(ended: Ended) -> None:
    slots = Slots(max_running=1, threads=1, timeout=0.05, tracing=ended)
    let_go = threading.Event()

    def hangs_in_a_thread() -> None:
        let_go.wait(5)

    def plain() -> None:
        pass

    slots.start([[task(hangs_in_a_thread)], [task(plain)]])
    assert await ended.wait_for(1) == [Outcome.TIMED_OUT]
    assert slots.load() == {"running": 1, "waiting": 1}
    let_go.set()
    assert await ended.wait_for(2) == [Outcome.TIMED_OUT, Outcome.SUCCEEDED]


async def test_no_starters_context_reaches_a_task(slots: Slots, ended: Ended) -> None:
    leaking: ContextVar[str] = ContextVar("leaking", default="")
    leaking.set("a request's span")
    seen: list[str] = []

    async def looks() -> None:
        seen.append(leaking.get())

    slots.start([[task(looks)]])
    await ended.wait_for(1)
    assert seen == [""]


async def test_draining_waits_for_what_runs(slots: Slots, ended: Ended) -> None:
    async def takes_a_moment() -> None:
        await asyncio.sleep(0.05)

    slots.start([[task(takes_a_moment)]])
    await slots.drain(5, nobody)
    assert await ended.wait_for(1) == [Outcome.SUCCEEDED]


async def test_a_short_drain_is_told_once(slots: Slots, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    slots.start([[task(hangs)]])
    await slots.drain(0.3, nobody)
    told = [message for message in caplog.messages if message.startswith("draining")]
    assert told == ["draining: 1 tasks get up to 0.3 s to end"]


async def test_draining_cuts_off_and_tells(slots: Slots, ended: Ended) -> None:
    cut_off, never_started = [task(hangs), task(hangs)], task(returns)
    slots.start([[each] for each in [*cut_off, never_started]])
    told: list[Task] = []
    await slots.drain(0.05, told.append)
    assert told == [*cut_off, never_started]
    assert await ended.wait_for(2) == [Outcome.RELEASED] * 2


async def test_draining_gives_up_on_stubborn_tasks(slots: Slots) -> None:
    let_go = asyncio.Event()

    async def clings() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    slots.start([[task(clings)]])
    async with asyncio.timeout(3):
        await slots.drain(0.05, nobody)
    let_go.set()


async def test_one_task_can_be_cut_alone(slots: Slots, ended: Ended) -> None:
    both_run = asyncio.Barrier(3)

    async def runs() -> None:
        await both_run.wait()
        await hangs()

    first, second = task(runs), task(runs)
    slots.start([[first], [second]])
    await both_run.wait()
    slots.cancel(first.id)
    slots.cancel("task-of-somebody-else")
    assert await ended.wait_for(1) == [Outcome.RELEASED]
    assert ended.attempts[0].task is first
    assert slots.load()["running"] == 1


@pytest.mark.parametrize("others", [0, 2])
async def test_cut_before_its_begin_never_begins(slots: Slots, others: int) -> None:
    began, kept = [], []

    async def begins() -> None:
        began.append(1)

    def keep(attempt: Attempt, leave: Callable[[], None]) -> None:
        kept.append(attempt.outcome)
        leave()

    doomed = task(begins)
    slots.start([[task(hangs)] for _ in range(others)])
    slots.start([[doomed]], keep)
    slots.cancel(doomed.id)
    assert kept == [Outcome.RELEASED]
    assert slots.load() == {"running": others, "waiting": 0}
    await asyncio.sleep(0)
    assert not began


async def test_free_slots_are_counted_at_once(slots: Slots, ended: Ended) -> None:
    assert free(slots) == {Lane.COROUTINE: 2, Lane.THREAD: 1}
    slots.start([[task(returns)] for _ in range(3)])
    assert free(slots) == {Lane.COROUTINE: 0, Lane.THREAD: 1}
    await ended.wait_for(3)
    await asyncio.sleep(0)
    assert free(slots)[Lane.COROUTINE] == 2


def free(slots: Slots) -> dict[Lane, int]:
    return {lane: slots.free(lane)[Limit.SLOTS] for lane in Lane}


async def test_a_reserved_slot_is_not_free(slots: Slots) -> None:
    assert slots.reserve(Lane.THREAD)
    assert free(slots) == {Lane.COROUTINE: 2, Lane.THREAD: 0}
    assert not slots.reserve(Lane.THREAD)
    slots.unreserve(Lane.THREAD)
    assert free(slots) == {Lane.COROUTINE: 2, Lane.THREAD: 1}


async def test_successors_of_cut_tasks_never_start(slots: Slots, ended: Ended) -> None:
    slots.start([[task(hangs), task(returns)]])
    await slots.drain(0.01, nobody)
    assert await ended.wait_for(1) == [Outcome.RELEASED]


async def test_a_sequence_is_cut_before_its_begin(slots: Slots) -> None:
    slots.start([[task(hangs), task(hangs)], [task(hangs), task(hangs)], [task(hangs)]])
    told: list[Task] = []
    await slots.drain(0, told.append)
    assert len(told) == 5
    assert slots.load() == {"running": 0, "waiting": 0}


async def test_idle_slots_have_nothing_to_drain(
    slots: Slots, caplog: pytest.LogCaptureFixture
) -> None:
    await slots.drain(5, nobody)
    assert not caplog.records
