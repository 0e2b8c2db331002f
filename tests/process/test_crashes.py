"""kill -9 at every step and under load: what was accepted is done by another process."""

import os
import random
import signal
import time
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.bad_days import BAD_DAYS, Serve, all_succeeded, states_of
from tests.databases import not_writing
from tests.diary import by_task, never_at_the_same_time, runs
from tests.proxy import Proxy
from tests.serving import Load, Server, sql, until

# The fixture `database_url` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")

RESCUE_SECONDS = 15.0  # ten of silence, a beat, and the work
QUICK = "1"  # seconds of silence after which a worker is dead, where the test is not about them


def one_row(database_url: str, id: str) -> Any:
    rows = sql(database_url, "SELECT * FROM tasks WHERE id = :id", id=id)
    return rows[0] if rows else None


# --- under load ---


def kill_after(load: Load, answers: int, server: Server) -> None:
    until(lambda: len(load.accepted) >= answers, 20)
    server.kill()


def test_ordered_tasks_stay_ordered_despite_kills(
    serve: Serve, database_url: str, tmp_path: Path
) -> None:
    diary = tmp_path / "diary"
    day = {
        "app": BAD_DAYS,
        "DATABASE_URL": database_url,
        "DIARY": f"{diary}",
        "DEAD_SECONDS": QUICK,
    }
    server = serve(**day)
    response = httpx.post(
        f"{server.url}/do-in-order/keeps_a_diary", json=[{"seconds": 1}, {}, {}], timeout=30
    )
    ids = response.headers["task-id"].split(", ")
    until(lambda: diary.exists() and "start" in diary.read_text(), 10)
    server.kill()
    serve(**day)
    all_succeeded(database_url, ids, RESCUE_SECONDS)
    lines = [tuple(line.split()[:2]) for line in diary.read_text().splitlines()]
    assert lines == [("start", ids[0]), *((word, id) for id in ids for word in ("start", "end"))]


def test_repeated_kills_lose_no_accepted_task(serve: Serve, database_url: str) -> None:
    accepted: list[str] = []
    # No shorter, or what is rescued in each life is killed in each, and dead as poison.
    day = {
        "app": BAD_DAYS,
        "DATABASE_URL": database_url,
        "NOTIFY_SECONDS": "0.2",
        "DEAD_SECONDS": "3",
    }
    for _ in range(4):
        server = serve(**day)
        load = Load(server.url, "/api/notifications/notify")
        kill_after(load, random.randint(1, 1000), server)
        accepted += load.stop()
    serve(**day)
    # What two kills have hit runs one by one.
    all_succeeded(database_url, accepted, 4 * RESCUE_SECONDS)
    [(second_runs,)] = sql(database_url, "SELECT count(*) FROM tasks WHERE crashes > 0")
    [(attempts,)] = sql(database_url, "SELECT max(attempt) FROM tasks")
    print(f"{len(accepted)} accepted in 4 lives, {second_runs} of them run a second time")
    assert len(set(accepted)) == len(accepted)
    assert attempts == 1  # a crash is no failure
    assert second_runs > 0  # or nothing was under way, and this has shown nothing


# --- at every step ---

# For each step: is the client answered, how often is the work begun, how often done, the crashes.
STEPS = {
    "before the commit": (False, 0, 0, 0),
    "after the commit, before the answer": (False, 1, 1, 1),
    "while running": (True, 2, 1, 1),
    "between work and settle": (True, 2, 2, 1),
    "while settling": (True, 2, 2, 1),
    "after settling": (True, 1, 1, 0),
}


@pytest.mark.parametrize("step", STEPS)
def test_kills_at_any_step_lose_nothing(
    serve: Serve, tmp_path: Path, database_url: str, step: str
) -> None:
    is_answered, begun, done, crashes = STEPS[step]
    diary, died = tmp_path / "diary", tmp_path / "died"
    diary.touch()
    day = {
        "app": BAD_DAYS,
        "DATABASE_URL": database_url,
        "DIARY": f"{diary}",
        "DEAD_SECONDS": QUICK,
    }
    first = serve(**day, DIE_ONCE=step, DIED=f"{died}")
    try:
        answer = httpx.post(f"{first.url}/do/keeps_a_diary", json={})
    except httpx.TransportError:
        answer = None
    first.process.wait(10)
    assert first.process.returncode == -signal.SIGKILL
    assert (answer is not None) == is_answered
    second = serve(**day)
    assert httpx.get(f"{second.url}/health").status_code == 200
    stored = [row.id for row in sql(database_url, "SELECT id FROM tasks")]
    assert len(stored) == (0 if step == "before the commit" else 1)
    assert answer is None or answer.headers["task-id"] in stored
    all_succeeded(database_url, stored, 10)
    assert [
        (row.attempt, row.crashes)
        for row in sql(database_url, "SELECT attempt, crashes FROM tasks")
    ] == [(1, crashes) for _ in stored]
    every = runs(diary)
    assert (len(every), len([run for run in every if run.ended])) == (begun, done)


# --- one of two ---


def test_another_worker_rescues_a_killed_ones(
    serve: Serve, tmp_path: Path, database_url: str
) -> None:
    diary = tmp_path / "diary"
    day = {"app": BAD_DAYS, "DATABASE_URL": database_url, "DIARY": f"{diary}"}
    doomed, other = serve(**day), serve(**day)
    loads = [
        Load(each.url, "/do/keeps_a_diary", {"seconds": 0.3}, clients=4) for each in (doomed, other)
    ]
    until(lambda: all(len(load.accepted) > 20 for load in loads), 20)
    doomed.kill()
    killed_at = time.monotonic()
    assert not loads[1].statuses.keys() - {202}
    accepted = [id for load in loads for id in load.stop()]
    all_succeeded(database_url, accepted, killed_at + RESCUE_SECONDS - time.monotonic())
    never_at_the_same_time(diary, {doomed.pid: killed_at})
    crashed = {row.id for row in sql(database_url, "SELECT id FROM tasks WHERE crashes > 0")}
    again = {id for id, mine in by_task(runs(diary)).items() if len(mine) > 1}
    print(f"{len(accepted)} accepted by two, {len(again)} of them run a second time, none is lost")
    assert again
    assert again <= crashed


def test_a_killed_sibling_process_is_replaced(serve: Serve, tmp_path: Path) -> None:
    diary = tmp_path / "diary"
    database_url = f"sqlite:///{tmp_path}/service.db"
    server = serve(app=BAD_DAYS, args=["--workers", "2"], DIARY=f"{diary}", DEAD_SECONDS="2")
    url = server.url
    pid = int(
        server.wait_for_log(
            r"(?s)Started server process \[\d+\].*Started server process \[(\d+)\]"
        )[1]
    )
    server.wait_for_log(r"(?s)(Application startup complete.*){2}")
    load = Load(url, "/do/keeps_a_diary", {"seconds": 0.3})
    until(lambda: pid in {run.pid for run in runs(diary)} if diary.exists() else False, 10)
    os.kill(pid, signal.SIGKILL)
    killed_at = time.monotonic()
    accepted = load.stop()
    all_succeeded(database_url, accepted, killed_at + RESCUE_SECONDS - time.monotonic())
    never_at_the_same_time(diary, {pid: killed_at})
    server.wait_for_log(r"(?s)(Application startup complete.*){3}")


def test_two_living_workers_run_none_twice(serve: Serve, tmp_path: Path, database_url: str) -> None:
    diary = tmp_path / "diary"
    day = {"app": BAD_DAYS, "DATABASE_URL": database_url, "DIARY": f"{diary}"}
    # So few slots that most tasks wait in the database, where both workers reach for them.
    servers = [serve(**day, MAX_RUNNING="3") for _ in range(2)]
    loads = [Load(each.url, "/do/keeps_a_diary", {"seconds": 0.01}, clients=8) for each in servers]
    until(lambda: all(len(load.accepted) > 150 for load in loads), 20)
    accepted = [id for load in loads for id in load.stop()]
    all_succeeded(database_url, accepted, 30)
    mine = by_task(runs(diary))
    assert sorted(mine) == sorted(accepted)
    assert [run for run in mine.values() if len(run) > 1] == []
    assert {run.pid for run in runs(diary)} == {each.pid for each in servers}


def test_frozen_workers_overwrite_no_settled_task(
    serve: Serve, tmp_path: Path, database_url: str
) -> None:
    day = {
        "app": BAD_DAYS,
        "DATABASE_URL": database_url,
        "DIARY": f"{tmp_path}/diary",
        "DEAD_SECONDS": QUICK,
    }
    frozen, other = serve(**day), serve(**day)
    assert httpx.get(f"{other.url}/health").status_code == 200
    id = httpx.post(f"{frozen.url}/do/keeps_a_diary", json={"seconds": 0.5}).headers["task-id"]
    frozen.wait_for_log("keeps_a_diary started")
    with not_writing(database_url):
        frozen.process.send_signal(signal.SIGSTOP)
    all_succeeded(database_url, [id], 30)
    frozen.process.send_signal(signal.SIGCONT)
    frozen.wait_for_log("it drops what it runs")
    after = httpx.post(f"{frozen.url}/do/keeps_a_diary", json={}).headers["task-id"]
    all_succeeded(database_url, [after], 30)
    row = one_row(database_url, id)
    assert (row.state, row.attempt, row.crashes, row.result) == ("succeeded", 1, 1, str(other.pid))
    assert one_row(database_url, after).crashes == 0


@pytest.mark.parametrize(
    "seconds", [0.5, 4.0], ids=["ends while frozen", "ends while the other runs it"]
)
def test_frozen_plain_functions_end_in_vain(
    serve: Serve, tmp_path: Path, database_url: str, seconds: float
) -> None:
    diary = tmp_path / "diary"
    day = {
        "app": BAD_DAYS,
        "DATABASE_URL": database_url,
        "DIARY": f"{diary}",
        "DEAD_SECONDS": QUICK,
    }
    frozen, other = serve(**day), serve(**day)
    assert httpx.get(f"{other.url}/health").status_code == 200
    name = "keeps_a_diary_in_a_thread"
    id = httpx.post(f"{frozen.url}/do/{name}", json={"seconds": seconds}).headers["task-id"]
    frozen.wait_for_log(f"{name} started")
    with not_writing(database_url):
        frozen.process.send_signal(signal.SIGSTOP)
    if seconds < float(QUICK):
        all_succeeded(database_url, [id], 30)
    else:
        other.wait_for_log(f"{name} started")
    frozen.process.send_signal(signal.SIGCONT)
    frozen.wait_for_log("it drops what it runs")
    # Nothing can stop it.
    until(lambda: [run.pid for run in runs(diary) if run.ended and run.pid == frozen.pid], 10)
    after = httpx.post(f"{frozen.url}/do/{name}", json={}).headers["task-id"]
    all_succeeded(database_url, [id, after], 30)  # what it had to settle late is written by now
    row = one_row(database_url, id)
    assert (row.state, row.attempt, row.crashes, row.result) == ("succeeded", 1, 1, str(other.pid))
    assert (row.error_kind, one_row(database_url, after).crashes) == (None, 0)
    assert sorted(run.pid for run in runs(diary) if run.task == id) == sorted(
        [frozen.pid, other.pid]
    )


# --- the database frozen under two ---


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
@pytest.mark.parametrize("is_cut", [False, True], ids=["and goes on", "and is cut off"])
def test_a_frozen_database_buries_no_worker(
    serve: Serve, tmp_path: Path, database_url: str, is_cut: bool
) -> None:
    def is_up(server: Server) -> bool:
        return httpx.get(f"{server.url}/health", timeout=20).status_code == 200

    def more(count: int) -> None:
        enough = [len(load.accepted) + count for load in loads]
        until(
            lambda: all(len(load.accepted) >= end for load, end in zip(loads, enough, strict=True)),
            30,
        )

    def beats() -> int:
        return int(sql(database_url, "SELECT sum(beats) FROM workers")[0][0])

    diary = tmp_path / "diary"
    with Proxy(database_url) as first, Proxy(database_url) as second:
        day = {"app": BAD_DAYS, "DIARY": f"{diary}", "DEAD_SECONDS": "3"}
        servers = [serve(**day, DATABASE_URL=proxy.url) for proxy in (first, second)]
        assert all(map(is_up, servers))
        long = [
            httpx.post(f"{each.url}/do/keeps_a_diary", json={"seconds": 10}) for each in servers
        ]
        loads = [
            Load(each.url, "/do/keeps_a_diary", {"seconds": 0.3}, clients=4) for each in servers
        ]
        more(50)
        first.freeze()
        before = beats()
        until(lambda: beats() >= before + 2, 10)  # the other has seen its last beat
        second.freeze()
        until(lambda: not any(map(is_up, servers)), 20)
        # Longer than a statement waits, and than a dead worker is silent.
        end = time.monotonic() + 6
        while time.monotonic() < end:
            assert not [each for each in servers if is_up(each)]
        before = beats()
        for proxy in (second, first):
            if is_cut:
                proxy.cut()
            proxy.thaw()
            # The one is back a bit earlier, and checks on the other.
            until(lambda: beats() >= before + 2, 10)
        until(lambda: all(map(is_up, servers)), 10)
        more(50)
        accepted = [each.headers["task-id"] for each in long] + [
            id for load in loads for id in load.stop()
        ]
        all_succeeded(database_url, accepted, 20)
        assert {status for load in loads for status in load.statuses} == {202, 503}
    never_at_the_same_time(diary, {})
    assert sql(database_url, "SELECT id FROM tasks WHERE crashes > 0 OR attempt > 1") == []
    assert not [
        each
        for each in servers
        if "it drops what it runs" in each.log() or "silent for" in each.log()
    ]


# --- SIGTERM ---


def test_the_next_process_runs_drain_leftovers(serve: Serve, database_url: str) -> None:
    first = serve(DATABASE_URL=database_url, NOTIFY_SECONDS="60", DRAIN_SECONDS="0.5")
    load = Load(first.url, "/api/notifications/notify")
    until(lambda: len(load.accepted) > 100, 10)
    first.process.send_signal(signal.SIGTERM)
    assert first.stop() < 10
    accepted = load.stop()
    assert set(states_of(database_url, accepted).values()) == {"queued"}
    assert sql(database_url, "SELECT id FROM workers") == []
    second = serve(DATABASE_URL=database_url, NOTIFY_SECONDS="0.1")
    assert httpx.get(f"{second.url}/health").status_code == 200
    all_succeeded(database_url, accepted, 4)
    assert sql(database_url, "SELECT DISTINCT attempt, crashes FROM tasks") == [(1, 0)]


def test_finished_within_the_drain_runs_once(
    serve: Serve, tmp_path: Path, database_url: str
) -> None:
    diary = tmp_path / "diary"
    day = {"app": BAD_DAYS, "DATABASE_URL": database_url, "DIARY": f"{diary}"}
    first = serve(**day)
    load = Load(first.url, "/do/keeps_a_diary", {"seconds": 0.5})
    until(lambda: len(load.accepted) > 100, 10)
    assert first.stop() < 10
    accepted = load.stop()
    # What had no slot, or came last, may wait for the next process; what was begun has ended.
    assert all(run.ended for run in runs(diary))
    assert set(states_of(database_url, accepted).values()) <= {"succeeded", "queued"}
    second = serve(**day)
    assert httpx.get(f"{second.url}/health").status_code == 200
    all_succeeded(database_url, accepted, 5)
    assert sorted(run.task for run in runs(diary)) == sorted(accepted)
