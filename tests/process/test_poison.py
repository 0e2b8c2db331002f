"""A task that ends its process is dead, and it alone, however often processes are killed."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.bad_days import BAD_DAYS, Serve, do, insert, states
from tests.diary import runs
from tests.serving import Server, sql, until

# The fixture `database_url` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")

# Seconds of silence after which a worker is dead; less is too little on a busy machine.
QUICK = "2"
BYSTANDERS = 12
PATIENCE = 120  # seconds: what crashed twice runs one by one, each in a process that has to start


def row(database_url: str, id: str) -> Any:
    return sql(database_url, "SELECT * FROM tasks WHERE id = :id", id=id)[0]


def make_a_killer(database_url: str) -> str:
    """Turn the last of what waits into one that ends its process."""
    [(id,)] = sql(database_url, "SELECT max(id) FROM tasks")
    killer = {"name": "takes_its_process_down", "arguments": "{}", "in_thread": True}
    changes = ", ".join(f"{column} = :{column}" for column in killer)
    sql(database_url, f"UPDATE tasks SET {changes} WHERE id = :id", id=id, **killer)
    return str(id)


def restarted_until(serve: Callable[[], Server], done: Callable[[], bool], seconds: float) -> int:
    """Start the service anew whenever it ends, as a platform does; return the number of starts."""
    server, starts, deadline = serve(), 1, time.monotonic() + seconds
    while not done():
        assert time.monotonic() < deadline, server.log()[-4000:]
        if server.process.poll() is not None:
            server, starts = serve(), starts + 1
        time.sleep(0.1)
    assert server.process.poll() is None
    return starts


def test_killers_are_dead_and_bystanders_succeed(
    serve: Serve, tmp_path: Path, database_url: str
) -> None:
    def start() -> Server:
        return serve(
            app=BAD_DAYS, DATABASE_URL=database_url, DIARY=f"{tmp_path}/diary", DEAD_SECONDS=QUICK
        )

    first = start()
    assert httpx.get(f"{first.url}/health").status_code == 200
    first.stop()
    bystanders = insert(database_url, "keeps_a_diary", '{"seconds": 0.5}', count=BYSTANDERS + 1)[
        :-1
    ]
    killer_id = make_a_killer(database_url)
    expected = {"succeeded": BYSTANDERS, "dead": 1}
    starts = restarted_until(start, lambda: states(database_url) == expected, PATIENCE)
    assert starts == 3  # it has ended the process twice, and then one of its own
    killer = row(database_url, killer_id)
    assert (killer.state, killer.crashes, killer.attempt, killer.error_kind) == (
        "dead",
        3,
        0,
        "Poison",
    )
    assert killer.error_message.endswith("the last was its own, and was ended by SIGKILL")
    ended = [run.task for run in runs(tmp_path / "diary") if run.ended]
    assert sorted(ended) == sorted(bystanders)


def begun(server: Server, diary: Path, times: int) -> None:
    deadline = time.monotonic() + PATIENCE
    while len(runs(diary)) < times:
        assert time.monotonic() < deadline, (
            f"begun {len(runs(diary))} times, not {times}:\n{server.log()[-4000:]}"
        )
        time.sleep(0.1)


@pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
def test_five_outside_kills_condemn_no_task(
    serve: Serve, tmp_path: Path, database_url: str
) -> None:
    diary = tmp_path / "diary"
    diary.touch()
    day = {
        "app": BAD_DAYS,
        "DATABASE_URL": database_url,
        "DIARY": f"{diary}",
        "DEAD_SECONDS": QUICK,
    }
    server = serve(**day)
    id = do(server, "keeps_a_diary", seconds=600)
    for number in range(5):
        begun(server, diary, number + 1)
        server.kill()
        server = serve(**day)
    begun(server, diary, 6)
    assert len({run.pid for run in runs(diary)}) == 6
    sql(database_url, "UPDATE tasks SET arguments = '{\"seconds\": 0}' WHERE id = :id", id=id)
    server.kill()
    serve(**day)
    until(lambda: row(database_url, id).state == "succeeded", PATIENCE)
    assert (row(database_url, id).crashes, row(database_url, id).attempt) == (6, 1)


def test_shutdowns_give_back_what_runs_alone(
    serve: Serve, tmp_path: Path, database_url: str
) -> None:
    diary = tmp_path / "diary"
    diary.touch()
    day = {
        "app": BAD_DAYS,
        "DATABASE_URL": database_url,
        "DIARY": f"{diary}",
        "DRAIN_SECONDS": "0.5",
    }
    first = serve(**day)
    assert httpx.get(f"{first.url}/health").status_code == 200
    first.stop()
    [id] = insert(database_url, "keeps_a_diary", '{"seconds": 600}')
    sql(database_url, "UPDATE tasks SET crashes = 2")
    server = serve(**day)
    until(lambda: runs(diary), PATIENCE)
    assert runs(diary)[0].pid != server.pid
    assert server.stop() < 15
    found = row(database_url, id)
    assert (found.state, found.attempt, found.crashes) == ("queued", 0, 2)


def test_thousands_cannot_hold_up_another_name(
    serve: Serve, tmp_path: Path, database_url: str
) -> None:
    first = serve(app=BAD_DAYS, DATABASE_URL=database_url)
    assert httpx.get(f"{first.url}/health").status_code == 200
    first.stop()
    insert(database_url, "keeps_a_diary", '{"seconds": 0.05}', count=10_000)
    server = serve(
        app=BAD_DAYS,
        DATABASE_URL=database_url,
        DIARY=f"{tmp_path}/diary",
        MAX_RUNNING="10",
        MAX_QUEUED="100000",
    )
    until(lambda: states(database_url).get("succeeded", 0) > 20, PATIENCE)
    ids = [do(server, "measures", text="x") for _ in range(5)]
    left = [states(database_url)["queued"]]
    until(lambda: all(row(database_url, id).state == "succeeded" for id in ids), 30)
    left.append(states(database_url)["queued"])
    waited = [
        (each.started_at - each.created_at) / 1e6 for each in (row(database_url, id) for id in ids)
    ]
    print(f"started after {max(waited):.3f} s; {left[0]} waited before, {left[1]} after")
    assert left[1] > 5_000  # they have overtaken most
    assert max(waited) < 10
