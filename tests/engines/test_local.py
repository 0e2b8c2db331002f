"""The local engine: how many run at a time, what a failure touches, and how it drains."""

import asyncio
import inspect
import logging
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from afterwards.model import Attempt, Outcome, Task, new_task_id
from afterwards.slots import LocalEngine

pytestmark = pytest.mark.anyio


class Ended:
    """A surrounding that keeps every attempt, and tells when so many have ended."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self._changed = asyncio.Condition()
        self._waking: set[asyncio.Task[None]] = set()

    @contextmanager
    def surrounding(self, attempt: Attempt) -> Iterator[None]:
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
async def engine(ended: Ended) -> AsyncIterator[LocalEngine]:
    engine = LocalEngine(max_running=2, threads=1, timeout=30, surrounding=ended.surrounding)
    yield engine
    await engine.drain(0, nobody)


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
    engine: LocalEngine, ended: Ended, function: Callable[..., Any], outcome: Outcome
) -> None:
    engine.start([[task(function)]])
    assert await ended.wait_for(1) == [outcome]


async def test_a_failure_is_logged_once_with_its_id_and_traceback(
    engine: LocalEngine, ended: Ended, caplog: pytest.LogCaptureFixture
) -> None:
    failing = task(fails)
    engine.start([[failing]])
    await ended.wait_for(1)
    [record] = [each for each in caplog.records if each.levelno >= logging.ERROR]
    assert "fails failed after" in record.getMessage()
    assert record.exc_info is not None
    assert "as asked" in str(record.exc_info[1])
    assert getattr(record, "task_id", "") == failing.id


async def test_a_failing_task_does_not_stop_its_siblings(engine: LocalEngine, ended: Ended) -> None:
    engine.start([[task(fails)], [task(returns)], [task(exits)], [task(returns)]])
    assert (
        sorted(str(outcome) for outcome in await ended.wait_for(4))
        == ["failed"] * 2 + ["succeeded"] * 2
    )


async def test_an_attempt_that_hangs_is_cut_off_at_its_time_limit(ended: Ended) -> None:
    engine = LocalEngine(max_running=1, threads=1, timeout=0.05, surrounding=ended.surrounding)
    engine.start([[task(hangs)]])
    assert await ended.wait_for(1) == [Outcome.TIMED_OUT]


async def test_a_tasks_own_timeout_is_a_failure_like_any_other(
    engine: LocalEngine, ended: Ended
) -> None:
    async def times_out_inside() -> None:
        async with asyncio.timeout(0.01):
            await hangs()

    engine.start([[task(times_out_inside)]])
    assert await ended.wait_for(1) == [Outcome.FAILED]


async def test_no_more_run_than_may_and_the_rest_wait(engine: LocalEngine) -> None:
    engine.start([[task(hangs)] for _ in range(5)])
    await asyncio.sleep(0)  # one turn of the loop, for the attempts to take their slots
    assert engine.load() == {"running": 2, "waiting": 3}


async def test_tasks_of_one_sequence_run_one_after_another(
    engine: LocalEngine, ended: Ended
) -> None:
    seen: list[str] = []

    async def first() -> None:
        await asyncio.sleep(0.01)
        seen.append("first")
        raise ValueError("which must not stop the second")

    async def second() -> None:
        seen.append("second")

    engine.start([[task(first), task(second)]])
    await ended.wait_for(2)
    assert seen == ["first", "second"]


async def test_tasks_of_different_sequences_run_side_by_side(
    engine: LocalEngine, ended: Ended
) -> None:
    met = asyncio.Barrier(2)

    async def meets() -> None:
        await met.wait()

    engine.start([[task(meets)], [task(meets)]])
    assert await ended.wait_for(2) == [Outcome.SUCCEEDED] * 2


async def test_a_plain_function_runs_in_a_thread_and_coroutines_do_not(
    engine: LocalEngine, ended: Ended
) -> None:
    threads: list[threading.Thread] = []

    def plain() -> None:
        threads.append(threading.current_thread())

    async def coroutine() -> None:
        threads.append(threading.current_thread())

    engine.start([[task(plain), task(coroutine)]])
    await ended.wait_for(2)
    assert threads[0] is not threading.main_thread()
    assert threads[1] is threading.main_thread()


async def test_a_thread_that_outlives_its_attempt_keeps_its_slot(ended: Ended) -> None:
    engine = LocalEngine(max_running=1, threads=1, timeout=0.05, surrounding=ended.surrounding)
    let_go = threading.Event()

    def hangs_in_a_thread() -> None:
        let_go.wait(5)

    def plain() -> None:
        pass

    engine.start([[task(hangs_in_a_thread)], [task(plain)]])
    assert await ended.wait_for(1) == [Outcome.TIMED_OUT]
    assert engine.load() == {"running": 1, "waiting": 1}
    let_go.set()
    assert await ended.wait_for(2) == [Outcome.TIMED_OUT, Outcome.SUCCEEDED]


async def test_nothing_of_the_starters_context_reaches_a_task(
    engine: LocalEngine, ended: Ended
) -> None:
    leaking: ContextVar[str] = ContextVar("leaking", default="")
    leaking.set("a request's span")
    seen: list[str] = []

    async def looks() -> None:
        seen.append(leaking.get())

    engine.start([[task(looks)]])
    await ended.wait_for(1)
    assert seen == [""]


async def test_draining_waits_for_what_runs(engine: LocalEngine, ended: Ended) -> None:
    async def takes_a_moment() -> None:
        await asyncio.sleep(0.05)

    engine.start([[task(takes_a_moment)]])
    await engine.drain(5, nobody)
    assert await ended.wait_for(1) == [Outcome.SUCCEEDED]


async def test_draining_cuts_off_what_does_not_end_and_tells_of_it(
    engine: LocalEngine, ended: Ended
) -> None:
    cut_off, never_started = [task(hangs), task(hangs)], task(returns)
    engine.start([[each] for each in [*cut_off, never_started]])
    told: list[Task] = []
    await engine.drain(0.05, told.append)
    assert told == [*cut_off, never_started]
    assert await ended.wait_for(2) == [Outcome.RELEASED] * 2


async def test_draining_gives_up_on_a_task_that_will_not_be_cancelled(engine: LocalEngine) -> None:
    let_go = asyncio.Event()

    async def clings() -> None:
        while not let_go.is_set():
            try:
                await let_go.wait()
            except asyncio.CancelledError:
                continue

    engine.start([[task(clings)]])
    async with asyncio.timeout(3):
        await engine.drain(0.05, nobody)
    let_go.set()


async def test_a_task_can_be_cut_off_alone(engine: LocalEngine, ended: Ended) -> None:
    both_run = asyncio.Barrier(3)

    async def runs() -> None:
        await both_run.wait()
        await hangs()

    first, second = task(runs), task(runs)
    engine.start([[first], [second]])
    await both_run.wait()
    engine.cancel(first.id)
    engine.cancel("task-of-somebody-else")
    assert await ended.wait_for(1) == [Outcome.RELEASED]
    assert ended.attempts[0].task is first
    assert engine.load()["running"] == 1


async def test_free_slots_are_counted_at_once(engine: LocalEngine, ended: Ended) -> None:
    assert (engine.free(in_thread=False), engine.free(in_thread=True)) == (2, 1)
    engine.start([[task(returns)] for _ in range(3)])
    assert (engine.free(in_thread=False), engine.free(in_thread=True)) == (0, 1)
    await ended.wait_for(3)
    await asyncio.sleep(0)
    assert engine.free(in_thread=False) == 2


async def test_what_comes_after_a_cut_off_task_in_its_sequence_does_not_start(
    engine: LocalEngine, ended: Ended
) -> None:
    engine.start([[task(hangs), task(returns)]])
    await engine.drain(0.01, nobody)
    assert await ended.wait_for(1) == [Outcome.RELEASED]


async def test_an_idle_engine_has_nothing_to_drain(
    engine: LocalEngine, caplog: pytest.LogCaptureFixture
) -> None:
    await engine.drain(5, nobody)
    assert not caplog.records
