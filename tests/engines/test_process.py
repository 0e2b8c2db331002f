"""A process put together: one that runs what it accepts, and one that leaves that to others."""

import asyncio
import math
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from afterwards import worker as workers
from afterwards.limits import Limits
from afterwards.model import State, Task, new_task_id
from afterwards.process import Process
from afterwards.registry import task
from afterwards.retries import GiveUp
from afterwards.store.database import Database
from afterwards.store.tasks import Store

pytestmark = pytest.mark.anyio

begun: list[str] = []


@task("process: notes")
async def notes(word: str) -> None:
    begun.append(word)


@task("process: gives up")
def gives_up(word: str) -> None:
    begun.append(word)
    raise GiveUp("as asked")


@pytest.fixture(autouse=True)
def nothing_begun() -> None:
    begun.clear()


@pytest.fixture
async def store(database_url: str) -> AsyncIterator[Store]:
    database = Database(database_url)
    yield Store(database)
    await database.close()


def a_task(word: str, follows: str = "", function: Any = notes) -> Task:
    is_async = function is notes
    name = "process: notes" if is_async else "process: gives up"
    return Task(new_task_id(), name, function, is_async, (word,), follows=follows)


def in_order(*words: str, function: Any = notes) -> list[Task]:
    tasks = [a_task(words[0], function=function)]
    for word in words[1:]:
        tasks[-1].is_followed = True
        tasks.append(a_task(word, tasks[-1].id, function))
    return tasks


async def settled(store: Store, tasks: Sequence[Task]) -> list[str]:
    async with asyncio.timeout(20):
        while True:
            rows = [await store.get(task.id) for task in tasks]
            if all(row is not None and row.finished_at for row in rows):
                return [row.state for row in rows if row]
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("function", [notes, gives_up])
async def test_ordered_steps_wait_for_no_poll(
    store: Store, function: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "POLL_SECONDS", 3600.0)
    process = Process(store, Limits())
    await process.begin()
    steps = in_order("a", "b", "c", "d", function=function)
    await process.accept(steps)
    process.start(steps)
    state = State.SUCCEEDED if function is notes else State.DEAD
    assert await settled(store, steps) == [state] * 4
    assert begun == ["a", "b", "c", "d"]
    await process.drain(5)


async def test_a_process_may_only_accept(store: Store) -> None:
    web = Process(store, Limits(), run_tasks=False)
    await web.begin()
    new = a_task("elsewhere")
    await web.accept([new])
    web.start([new])
    web.wake()
    row = await store.get(new.id)
    assert row is not None
    assert (row.state, row.worker, web.is_well()) == (State.QUEUED, None, True)
    assert web.state().keys() == {"queued", "oldest_waiting", "running"}
    await web.drain(5)
    assert begun == []


async def test_what_is_only_accepted_runs_elsewhere(store: Store, database_url: str) -> None:
    elsewhere = Database(database_url)
    web, runs = Process(store, Limits(), run_tasks=False), Process(Store(elsewhere), Limits())
    await web.begin()
    await runs.begin()
    new = a_task("elsewhere")
    await web.accept([new])
    web.start([new])
    assert await settled(store, [new]) == [State.SUCCEEDED]
    row = await store.get(new.id)
    assert row is not None
    assert row.worker is not None
    await web.drain(5)
    await runs.drain(5)
    await elsewhere.close()


async def test_first_attempts_run_as_later_ones(store: Store) -> None:
    process = Process(store, Limits())
    await process.begin()
    new = a_task("asked")
    await process.accept([new])
    row = await store.get(new.id)
    assert row is not None
    assert (new.args, new.kwargs, new.worker) == ((), {"word": "asked"}, row.worker)
    process.start([new])
    assert await settled(store, [new]) == [State.SUCCEEDED]
    await process.drain(5)


async def test_cancelled_tasks_free_their_reserved_slot(store: Store) -> None:
    process = Process(store, Limits(max_running=1))
    await process.begin()
    first, second = a_task("first"), a_task("second")
    await process.accept([first])
    process.cancel(first.id)
    await process.accept([second])
    process.start([second])
    assert await settled(store, [second]) == [State.SUCCEEDED]
    assert begun == ["second"]
    await process.drain(5)


async def test_an_unreached_database_held_no_task(
    tmp_path: Any, caplog: pytest.LogCaptureFixture
) -> None:
    database = Database("postgres://nobody@127.0.0.1:1/none")
    process = Process(Store(database), Limits())
    await process.begin()
    await process.drain(0)
    assert "the database was never reached; this worker held no task" in caplog.text
    assert "others will rescue" not in caplog.text
    await database.close()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_running", 0),
        ("max_running", True),
        ("threads", 1.5),
        ("timeout", 0),
        ("timeout", math.nan),
        ("timeout", "60"),
        ("max_queued", -1),
        ("keep_days", math.inf),
    ],
)
def test_a_wrong_option_is_named(name: str, value: object) -> None:
    with pytest.raises(ValueError, match=f"^{name}: {value!r} is wrong"):
        Limits(**{name: value})  # type: ignore[arg-type]  # which is the point


def test_the_defaults_are_right() -> None:
    assert Limits(max_queued=0, keep_days=0, timeout=1) != Limits()
