"""The kit runs nothing by itself, and what is due one task at a time when it is asked to."""

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTasks
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from afterwards import Afterwards, Later
from afterwards.attempt import current_task_id
from afterwards.errors import ArgumentsRefused, UnknownTask
from afterwards.model import Outcome, Task, new_task_id
from afterwards.registry import task
from afterwards.retries import GiveUp, RetryAfter
from afterwards.testing import TaskKit

pytestmark = pytest.mark.anyio

done: list[Any] = []
leaked: ContextVar[str] = ContextVar("leaked", default="")


@pytest.fixture(autouse=True)
def nothing_done() -> None:
    done.clear()


@pytest.fixture
async def kit(database_url: str) -> AsyncIterator[TaskKit]:
    async with TaskKit(database_url) as kit:
        yield kit


@task("kit: notes")
async def notes(word: str) -> str:
    done.append(word)
    return f"noted {word}"


@task("kit: notes in a thread")
def notes_in_a_thread(word: str) -> None:
    done.append(word)


@task("kit: fails", attempts=3, first_pause=10)
async def fails() -> None:
    raise ValueError("as asked")


@task("kit: asks for time")
async def asks_for_time(seconds: float) -> str:
    done.append("asked")
    if len(done) == 1:
        raise RetryAfter(seconds)
    return "in time"


@task("kit: gives up")
async def gives_up() -> None:
    raise GiveUp("no use")


@task("kit: hangs", timeout=0.05, attempts=1)
async def hangs() -> None:
    done.append("hangs")
    await asyncio.Event().wait()


@task("kit: hangs for long")
async def hangs_for_long() -> None:
    await hangs()


@task("kit: notes what leaked")
async def notes_what_leaked() -> None:
    done.append(leaked.get())


def a_task(function: Callable[..., Any], *args: Any) -> Task:
    return Task(
        new_task_id(), function.__name__, function, inspect.iscoroutinefunction(function), args
    )


# --- in memory ---


async def test_what_lives_in_memory_waits_too(kit: TaskKit) -> None:
    groups = [[a_task(notes, 1), a_task(notes_in_a_thread, 2)], [a_task(notes, 3)]]
    kit.process.start_in_memory(groups)
    await asyncio.sleep(0)
    assert done == []
    attempts = await kit.drain()
    assert done == [1, 2, 3]
    assert {attempt.outcome for attempt in attempts} == {Outcome.SUCCEEDED}
    assert await kit.drain() == []


async def test_a_failing_attempt_stops_no_other(kit: TaskKit) -> None:
    kit.process.start_in_memory([[a_task(fails), a_task(notes, 1)]])
    assert [attempt.outcome for attempt in await kit.drain()] == [
        Outcome.FAILED,
        Outcome.SUCCEEDED,
    ]


async def test_who_is_cancelled_cancels_the_task(kit: TaskKit) -> None:
    kit.process.start_in_memory([[a_task(hangs_for_long)], [a_task(notes, 1)]])
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await kit.drain()
    assert done == ["hangs"]
    [attempt] = await kit.drain()
    assert attempt.task.name == "notes"


# --- stored ---


async def test_drains_run_tasks_and_keep_results(kit: TaskKit) -> None:
    id = await kit.enqueue(notes, "a")
    assert (done, (await kit.row(id)).state) == ([], "queued")
    [attempt] = await kit.drain()
    assert (attempt.outcome, attempt.result, attempt.number) == (Outcome.SUCCEEDED, "noted a", 1)
    row = await kit.row(id)
    assert (row.state, row.result, row.attempt) == ("succeeded", '"noted a"', 1)
    assert await kit.drain() == []


async def test_plain_functions_and_coroutines_drain_alike(kit: TaskKit) -> None:
    await kit.enqueue(notes_in_a_thread, "thread")
    for number in range(5):
        await kit.enqueue(notes, word=f"{number}")
    assert [attempt.outcome for attempt in await kit.drain()] == [Outcome.SUCCEEDED] * 6
    assert done == ["0", "1", "2", "3", "4", "thread"]


async def test_failed_tasks_wait_exactly_their_backoff(
    kit: TaskKit,
) -> None:
    id = await kit.enqueue(fails)
    for number, pause in ((1, 10), (2, 20)):
        [attempt] = await kit.drain()
        assert (attempt.number, attempt.outcome) == (number, Outcome.FAILED)
        assert (await kit.row(id)).state == "retrying"
        assert await kit.due_at(id) == kit.now + timedelta(seconds=pause)
        await kit.advance(pause - 1e-6)
        assert await kit.drain() == []
        await kit.advance(1e-6)
    assert await kit.due_at(id) is None
    [attempt] = await kit.drain()
    row = await kit.row(id)
    assert (row.state, row.attempt, row.error_kind, row.error_message) == (
        "dead",
        3,
        "ValueError",
        "as asked",
    )
    await kit.advance(1e6)
    assert await kit.drain() == []


async def test_tasks_get_the_time_they_ask(kit: TaskKit) -> None:
    id = await kit.enqueue(asks_for_time, 3600)
    await kit.drain()
    assert await kit.due_at(id) == kit.now + timedelta(hours=1)
    await kit.advance(3600)
    assert [attempt.result for attempt in await kit.drain()] == ["in time"]


async def test_tasks_asking_no_time_rerun_immediately(kit: TaskKit) -> None:
    await kit.enqueue(asks_for_time, 0)
    assert [attempt.outcome for attempt in await kit.drain()] == [Outcome.FAILED, Outcome.SUCCEEDED]


async def test_giving_up_or_overrunning_is_dead(kit: TaskKit) -> None:
    ids = [await kit.enqueue(gives_up), await kit.enqueue(hangs)]
    assert [attempt.outcome for attempt in await kit.drain()] == [Outcome.FAILED, Outcome.TIMED_OUT]
    assert [(await kit.row(id)).state for id in ids] == ["dead", "dead"]
    assert [(await kit.row(id)).error_kind for id in ids] == ["GiveUp", "TimeoutError"]


async def test_the_clock_is_settable_and_stands(kit: TaskKit) -> None:
    new_year = datetime(2030, 1, 1, tzinfo=UTC)
    await kit.set_clock(new_year)
    late = await kit.enqueue_at(new_year + timedelta(days=2), notes, "late")
    early = await kit.enqueue_at(new_year + timedelta(days=1), notes, "early")
    now = await kit.enqueue_at(new_year, notes, "now")
    assert [attempt.task.id for attempt in await kit.drain()] == [now]
    await kit.set_clock(new_year + timedelta(days=3))
    assert [attempt.task.id for attempt in await kit.drain()] == [early, late]
    assert kit.now == new_year + timedelta(days=3)


async def test_unfit_tasks_are_dead_others_run(kit: TaskKit) -> None:
    unfit, fit = await kit.enqueue(notes, "a"), await kit.enqueue(notes, "b")
    async with kit.database.transaction() as connection:
        await connection.exec_driver_sql(
            f"UPDATE afterwards_tasks SET name = 'gone' WHERE id = '{unfit}'"
        )
    assert [attempt.task.id for attempt in await kit.drain()] == [fit]
    assert (await kit.row(unfit)).error_kind == "UnknownTask"


async def test_task_contexts_start_and_end_empty(kit: TaskKit) -> None:
    leaked.set("the test's")
    await kit.enqueue(notes_what_leaked)
    await kit.drain()
    assert done == [""]
    assert current_task_id.get() == ""


async def test_the_kit_refuses_what_requests_would(kit: TaskKit) -> None:
    with pytest.raises(ArgumentsRefused):
        await kit.enqueue(notes, 1)  # type: ignore[arg-type]  # which is the point
    with pytest.raises(UnknownTask):
        await kit.enqueue(a_task)  # type: ignore[call-arg]
    with pytest.raises(LookupError):
        await kit.row("task-1")


async def test_an_applications_tasks_run_at_drains(kit: TaskKit) -> None:
    async def handler(request: Request) -> Response:
        background = BackgroundTasks()
        background.add_task(notes, "stored")
        background.add_task(done.append, "in memory")
        return PlainTextResponse("ok", background=background)

    app = Starlette(routes=[Route("/", handler, methods=["POST"])])
    afterwards = Afterwards()
    afterwards.install(app)
    kit.put_on(afterwards)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        ids = (await client.post("/")).headers["task-id"].split(", ")
        again = [await client.post("/", headers={"idempotency-key": "k"}) for _ in range(2)]
    assert done == []
    assert again[0].headers["task-id"] == again[1].headers["task-id"]
    attempts = await kit.drain()
    assert sorted(done) == ["in memory", "in memory", "stored", "stored"]
    assert {attempt.task.id for attempt in attempts} >= {*ids}
    assert (await kit.row(ids[0])).state == "succeeded"


async def test_later_tasks_obey_the_kits_clock(
    kit: TaskKit,
) -> None:
    async def handler(request: Request) -> Response:
        return PlainTextResponse(
            "ok", background=Later(datetime.now(UTC) + timedelta(hours=1), notes, "later")
        )

    await kit.set_clock(datetime(2030, 1, 1, tzinfo=UTC))
    app = Starlette(routes=[Route("/", handler, methods=["POST"])])
    afterwards = Afterwards()
    afterwards.install(app)
    kit.put_on(afterwards)
    async with httpx.AsyncClient(
        transport=httpx.ASGITransport(app), base_url="http://test"
    ) as client:
        id = (await client.post("/")).headers["task-id"]
    assert await kit.drain() == []
    due_at = await kit.due_at(id)
    assert due_at is not None
    assert timedelta(minutes=59) < due_at - kit.now <= timedelta(hours=1)
    await kit.set_clock(due_at - timedelta(microseconds=1))
    assert await kit.drain() == []
    await kit.advance(1)
    assert [attempt.task.id for attempt in await kit.drain()] == [id]


async def test_a_kits_database_leaves_with_it() -> None:
    async with TaskKit() as kit:
        id = await kit.enqueue(notes, "a")
    async with TaskKit() as other:
        with pytest.raises(LookupError):
            await other.row(id)
