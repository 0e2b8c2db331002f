"""A task that runs alone: what ends its process ends nothing else; the rest is as usual."""

import asyncio
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from afterwards import isolation, registry
from afterwards.model import Attempt, Lane, Outcome, Task, new_task_id
from afterwards.retries import GiveUp, Poison, RetryAfter, settlement
from afterwards.slots import Slots
from afterwards.tracing import NO_TRACING
from afterwards.turns import Limit
from tests.engines import alone_tasks
from tests.serving import until

pytestmark = pytest.mark.anyio

Run = Callable[..., Awaitable[Attempt]]
PATIENCE = 60  # seconds; a child imports what the parent has long imported


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(isolation, "DOUBT_SECONDS", 0.01)


@pytest.fixture
async def slots() -> AsyncIterator[Slots]:
    slots = Slots(max_running=10, threads=2, timeout=30, tracing=NO_TRACING)
    yield slots
    await slots.drain(0, lambda task: None)


@pytest.fixture
def run(slots: Slots) -> Run:
    async def run(function: Callable[..., Any], *, crashes: int = 2, **arguments: Any) -> Attempt:
        ended: asyncio.Future[Attempt] = asyncio.get_running_loop().create_future()

        def end(attempt: Attempt, leave: Callable[[], None]) -> None:
            leave()
            ended.set_result(attempt)

        slots.start([[a_task(function, crashes, **arguments)]], end)
        async with asyncio.timeout(PATIENCE):
            return await ended

    return run


def a_task(function: Callable[..., Any], crashes: int = 2, **arguments: Any) -> Task:
    entry = registry.of_function(function)
    assert entry is not None
    id, policy = new_task_id(), entry.policy
    return Task(
        id, entry.name, function, entry.is_async, kwargs=arguments, policy=policy, crashes=crashes
    )


@pytest.mark.parametrize("function", [alone_tasks.tells, alone_tasks.tells_in_a_thread])
async def test_twice_crashed_tasks_run_elsewhere_alike(
    run: Run, function: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        here, alone = await run(function, crashes=1, word="ü"), await run(function, word="ü")
    assert here.result["pid"] == os.getpid() != alone.result["pid"]
    assert (here.outcome, alone.outcome) == (Outcome.SUCCEEDED, Outcome.SUCCEEDED)
    assert [each.result["id"] for each in (here, alone)] == [here.task.id, alone.task.id]
    assert alone.result["word"] == "ü"


async def test_its_log_lines_reach_the_parent(run: Run, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("alone.quiet").setLevel(logging.WARNING)
    with caplog.at_level(logging.INFO):
        attempt = await run(alone_tasks.tells, word="so")
    [record] = [each for each in caplog.records if each.name.startswith("alone")]
    assert (record.getMessage(), record.levelname) == ("it was told so", "INFO")
    assert getattr(record, "task_id", "") == attempt.task.id


@pytest.mark.parametrize(
    ("what", "base", "text", "outcome", "state"),
    [
        ("ValueError", Exception, "as asked", Outcome.FAILED, "retrying"),
        ("RetryAfter", RetryAfter, "busy", Outcome.FAILED, "retrying"),
        ("TooFar", GiveUp, "no such place", Outcome.FAILED, "dead"),
        ("SystemExit", Exception, "3", Outcome.FAILED, "retrying"),
        ("CancelledError", asyncio.CancelledError, "", Outcome.CANCELLED, "retrying"),
    ],
)
async def test_errors_there_are_errors_here(
    run: Run, what: str, base: type[BaseException], text: str, outcome: Outcome, state: str
) -> None:
    attempt = await run(alone_tasks.raises, what=what)
    settled = settlement(attempt)
    assert isinstance(attempt.error, base)
    assert (attempt.outcome, settled.state) == (outcome, state)
    assert (settled.error_kind, settled.error_message) == (what, text)
    assert what != "RetryAfter" or settled.delay == 42
    assert "alone_tasks.py" in str(attempt.error.__cause__)  # where it was raised


@pytest.mark.parametrize("function", [alone_tasks.hangs, alone_tasks.hangs_in_a_thread])
async def test_its_time_limit_excludes_its_start(run: Run, function: Callable[..., Any]) -> None:
    attempt = await run(function)
    assert attempt.outcome is Outcome.TIMED_OUT
    assert settlement(attempt).error_message == "it was cut off at its time limit"


async def test_results_other_than_json_are_dropped(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    attempt = await run(alone_tasks.returns_no_json)
    assert (attempt.outcome, attempt.result) == (Outcome.SUCCEEDED, None)
    assert "returned what is not JSON" in caplog.text


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("SIGSEGV", "was ended by SIGSEGV"),
        ("exit", "ended with exit status 7"),
        ("and leaves a child behind", "ended with exit status 7"),
    ],
)
async def test_its_own_crash_is_poison(
    run: Run, how: str, words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        attempt = await run(alone_tasks.dies, how=how)
    assert isinstance(attempt.error, Poison)
    assert attempt.error.crashes == 3
    settled = settlement(attempt)
    assert (settled.state, settled.error_kind) == ("dead", "Poison")
    assert (
        settled.error_message
        == f"3 times the process that ran it ended with it; the last was its own, and {words}"
    )
    assert "these are its last words" in caplog.text


async def test_children_are_reused_but_not_forever(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(isolation, "KEPT_SECONDS", 20)
    first = await run(alone_tasks.tells, word="x")
    failed = await run(alone_tasks.raises, what="ValueError")
    monkeypatch.setattr(isolation, "KEPT_SECONDS", 0.1)
    second = await run(alone_tasks.tells_in_a_thread, word="y")
    assert failed.outcome is Outcome.FAILED
    assert first.result["pid"] == second.result["pid"]
    assert second.result["id"] == second.task.id
    await asyncio.to_thread(until, lambda: not is_alive(second.result["pid"]), 15)
    assert (await run(alone_tasks.tells, word="z")).result["pid"] != second.result["pid"]


async def test_leftovers_in_a_child_blame_nobody(run: Run) -> None:
    left = await run(alone_tasks.leaves_a_bomb)
    innocent = await run(alone_tasks.takes_a_second)
    assert (left.outcome, innocent.outcome) == (Outcome.SUCCEEDED, Outcome.SUCCEEDED)
    assert left.result != innocent.result


async def test_poison_is_confirmed_in_fresh_children(run: Run) -> None:
    assert (await run(alone_tasks.tells, word="x")).outcome is Outcome.SUCCEEDED
    assert isinstance((await run(alone_tasks.dies, how="exit")).error, Poison)


async def test_children_leave_signals_to_their_parent(run: Run) -> None:
    assert (await run(alone_tasks.takes_a_signal)).result == "alive"


async def test_modules_from_forgotten_places_are_found(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(__file__).parents[2]
    monkeypatch.setattr(sys, "path", [each for each in sys.path if each and Path(each) != home])
    monkeypatch.chdir("/")
    attempt = await run(alone_tasks.tells, word="x")
    assert attempt.result["pid"] != os.getpid()


@pytest.mark.parametrize("end", ["cancel", "drain"])
async def test_cutting_off_releases_and_kills(slots: Slots, tmp_path: Path, end: str) -> None:
    ended: list[Attempt] = []

    def keep(attempt: Attempt, leave: Callable[[], None]) -> None:
        leave()
        ended.append(attempt)

    task, path = a_task(alone_tasks.writes_and_waits, path=f"{tmp_path}/pid"), tmp_path / "pid"
    slots.start([[task]], keep)
    await asyncio.to_thread(until, lambda: path.exists() and path.read_text(), PATIENCE)
    if end == "cancel":
        slots.cancel(task.id)
    await slots.drain(0 if end == "drain" else 5, lambda task: None)
    assert [each.outcome for each in ended] == [Outcome.RELEASED]
    until(lambda: not is_alive(int(path.read_text())), 10)


def is_alive(pid: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


async def test_unimportable_tasks_run_here_until_poison(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    @registry.task("alone.only_here")
    async def only_here() -> int:
        return os.getpid()

    assert (await run(only_here)).result == os.getpid()
    assert "cannot run in a process of its own, so it runs in this one: UnknownTask" in caplog.text
    attempt = await run(only_here, crashes=isolation.UNSURE_CRASHES)
    assert isinstance(attempt.error, Poison)
    assert attempt.error.crashes == isolation.UNSURE_CRASHES
    assert "cannot run in a process of its own" in str(attempt.error)


async def test_one_runs_alone_among_few_suspects(slots: Slots, run: Run) -> None:
    assert slots.free(Lane.COROUTINE) == {Limit.SLOTS: 10, Limit.SUSPECTS: 4, Limit.ALONE: 1}
    for crashes in (0, 1, 2):
        slots.start([[a_task(alone_tasks.hangs, crashes)]])
    # What runs alone takes no slot of its lane.
    assert slots.free(Lane.COROUTINE) == {Limit.SLOTS: 8, Limit.SUSPECTS: 3, Limit.ALONE: 0}
    await slots.drain(0, lambda task: None)


async def test_draining_releases_what_awaits_isolation(slots: Slots) -> None:
    ended: list[Attempt] = []

    def keep(attempt: Attempt, leave: Callable[[], None]) -> None:
        leave()
        ended.append(attempt)

    slots.start([[a_task(alone_tasks.hangs)], [a_task(alone_tasks.hangs)]], keep)
    await asyncio.sleep(0)  # one turn of the loop, for the attempts to take their slots
    await slots.drain(0, lambda task: None)
    assert [each.outcome for each in ended] == [Outcome.RELEASED] * 2
    assert slots.free(Lane.COROUTINE)[Limit.ALONE] == 1


async def test_each_ended_suspect_admits_one_more(slots: Slots, run: Run) -> None:
    for number in range(3):
        await run(alone_tasks.tells, crashes=1, word="x")
        await asyncio.sleep(0)
        assert slots.free(Lane.COROUTINE)[Limit.SUSPECTS] == 5 + number
    await run(alone_tasks.tells, crashes=0, word="x")
    assert slots.free(Lane.COROUTINE)[Limit.SUSPECTS] == 7


PARENT = """
import asyncio, sys
from afterwards.slots import Slots
from afterwards.tracing import NO_TRACING
from afterwards.model import Task
from afterwards.registry import task

@task("alone.of_a_script")
async def of_a_script(path: str) -> None:
    with open(path, "w") as file:
        file.write(__name__ + " " + str(__import__("os").getpid()))
    await asyncio.Event().wait()

async def main() -> None:
    slots = Slots(max_running=1, threads=1, timeout=60, tracing=NO_TRACING)
    path = {"path": sys.argv[1]}
    slots.start([[Task("task-1", "alone.of_a_script", of_a_script, True, kwargs=path, crashes=2)]])
    await asyncio.sleep(60)

if __name__ == "__main__":
    asyncio.run(main())
"""


def test_children_die_with_their_parent(tmp_path: Path) -> None:
    script, path = tmp_path / "script.py", tmp_path / "pid"
    script.write_text(PARENT)
    environ = {"PYTHONPATH": str(Path(__file__).parents[2])}
    parent = subprocess.Popen([sys.executable, str(script), str(path)], env=environ)
    try:
        until(lambda: path.exists() and path.read_text(), PATIENCE)
        name, pid = path.read_text().split()
        # A program that was started as a file has been imported all the same.
        assert name == "__task__"
        assert is_alive(int(pid))
        assert int(pid) != parent.pid
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
    began = time.monotonic()
    until(lambda: not is_alive(int(pid)), 10)
    print(f"the child ended {time.monotonic() - began:.2f} s after its parent")
