"""The database gone, the disk full, the clock set back, a flood: what was accepted is done."""

import functools
import resource
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import serving
from tests.bad_days import BAD_DAYS, Serve, do, insert, post, settled, states
from tests.databases import locked
from tests.postgres import frozen, stopped
from tests.serving import Load, Server, sql, until, until_health

# The fixture `database_url` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")

QUICK = "1"  # seconds of silence after which a worker is dead, where the test is not about them
HOUR = 3_600_000_000  # in the rows' microseconds
FAKETIME = "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1"  # Debian's package libfaketime


def all_succeeded(database_url: str, seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while (found := states(database_url)).keys() != {"succeeded"}:
        assert time.monotonic() < deadline, f"after {seconds:g} s there are {found}"
        time.sleep(0.1)


# --- tasks that misbehave ---


@pytest.fixture(scope="module")
def day(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """One service for all the tasks that leave their process alone."""
    directory = tmp_path_factory.mktemp("day")
    server = serving.start(directory, app=BAD_DAYS, DIARY=f"{directory}/diary")
    yield server
    server.kill()


def test_raising_tasks_die_explained_after_retries(day: Server) -> None:
    task = settled(day, do(day, "raises"))
    assert (task["state"], task["attempt"], task["crashes"]) == ("dead", 3, 0)
    assert task["error"] == {"kind": "ValueError", "message": "as asked"}


def test_a_later_success_clears_the_error(day: Server) -> None:
    task = settled(day, do(day, "raises_until_the_third"))
    assert (task["state"], task["attempt"], task["result"], task["error"]) == (
        "succeeded",
        3,
        "third time lucky",
        None,
    )


def test_hanging_attempts_are_cut_until_dead(day: Server) -> None:
    task = settled(day, do(day, "hangs"))
    assert (task["state"], task["attempt"]) == ("dead", 2)
    assert task["error"] == {"kind": "TimeoutError", "message": "it was cut off at its time limit"}


@pytest.mark.parametrize("name", ["exits", "exits_in_a_thread"])
def test_the_process_survives_a_tasks_exit(day: Server, name: str) -> None:
    task = settled(day, do(day, name))
    assert (task["state"], task["attempt"], task["crashes"]) == ("dead", 2, 0)
    assert task["error"] == {"kind": "SystemExit", "message": "3"}
    assert day.process.poll() is None


@pytest.mark.parametrize("what", ["an object", "nan", "bytes"])
def test_results_other_than_json_are_dropped(day: Server, what: str) -> None:
    task = settled(day, do(day, "returns", what=what))
    assert (task["state"], task["result"], task["error"]) == ("succeeded", None, None)


def test_results_that_are_json_are_kept(day: Server) -> None:
    assert settled(day, do(day, "returns", what="json"))["result"] == {"a": [1, None, "ü"]}


def test_a_mebibyte_of_arguments_arrives_whole(day: Server) -> None:
    text = "x" * (1024 * 1024 - len('{"text":""}'))  # the largest body that there is
    assert settled(day, do(day, "measures", text=text))["result"] == len(text)
    assert post(day, "measures", text=text + "x").status_code == 413


def test_tasks_get_the_time_they_ask(day: Server) -> None:
    began = time.monotonic()
    task = settled(day, do(day, "asks_for_time", seconds=1.0))
    assert (task["state"], task["attempt"], task["result"]) == ("succeeded", 2, "in time")
    assert time.monotonic() - began >= 1


def test_giving_up_is_dead_at_once(day: Server) -> None:
    task = settled(day, do(day, "gives_up"))
    assert (task["state"], task["attempt"], task["max_attempts"]) == ("dead", 1, 5)
    assert task["error"] == {"kind": "GiveUp", "message": "the address does not exist"}


def test_retried_dead_tasks_regain_all_attempts(day: Server) -> None:
    id = do(day, "gives_up")
    settled(day, id)
    assert httpx.post(f"{day.url}/tasks/{id}/retry").status_code == 202
    assert settled(day, id)["attempt"] == 1
    succeeded = do(day, "keeps_a_diary")
    settled(day, succeeded)
    assert httpx.post(f"{day.url}/tasks/{succeeded}/retry").status_code == 409


def test_killing_three_processes_makes_tasks_dead(
    serve: Serve, tmp_path: Path, database_url: str
) -> None:
    diary = tmp_path / "diary"
    day = {
        "app": BAD_DAYS,
        "DATABASE_URL": database_url,
        "DIARY": f"{diary}",
        "DEAD_SECONDS": QUICK,
    }
    first = serve(**day)
    id = do(first, "takes_its_process_down")
    first.process.wait(10)
    serve(**day).process.wait(20)
    last = serve(**day)
    # In a process of its own: the last goes on.
    until(lambda: diary.read_text().count("start") == 3, 60)
    task = settled(last, id)
    assert (task["state"], task["crashes"], task["attempt"]) == ("dead", 3, 0)
    assert task["error"]["kind"] == "Poison"
    assert "3 times" in task["error"]["message"]
    assert diary.read_text().count("start") == 3
    assert settled(last, do(last, "keeps_a_diary"))["state"] == "succeeded"


# --- the database gone ---


# For how many seconds it is away: longer than a statement waits, ten, as long as a restart.
@pytest.fixture(
    params=[(locked, 7.0), (frozen, 10.0), (stopped, 4.0)], ids=["locked", "frozen", "stopped"]
)
def fragile(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[str, Callable[[], Any], float]:
    """A database's URL, what takes that database away, and for how long (s)."""
    how, seconds = request.param
    if how is locked:
        path = tmp_path / "service.db"
        return f"sqlite:///{path}", functools.partial(locked, path), seconds
    postgres = request.getfixturevalue("postgres")
    for table in ("tasks", "workers", "users", "answers"):
        sql(postgres.url, f"DROP TABLE IF EXISTS {table}")
    return postgres.url, functools.partial(how, postgres), seconds


def test_absent_databases_mean_503_until_back(
    serve: Serve, tmp_path: Path, fragile: tuple[str, Callable[[], Any], float]
) -> None:
    database_url, away, seconds = fragile
    diary = tmp_path / "diary"
    server = serve(app=BAD_DAYS, DATABASE_URL=database_url, DIARY=f"{diary}")
    # One that ends while the database is away, and one that ends when it is back.
    running = [do(server, "keeps_a_diary", seconds=length) for length in (2.0, seconds + 3)]
    until(lambda: diary.read_text().count("start") == 2, 5)
    load = Load(server.url, "/do/keeps_a_diary", {})
    until(lambda: len(load.accepted) > 50, 10)
    with away():
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            response = post(server, "keeps_a_diary")  # it gives up on an answer that does not come
            assert response.status_code == 503
            assert int(response.headers["retry-after"]) > 0
        health = until_health(server, 503)
        assert (health["status"], health["database"]) == ("down", "down")
        assert httpx.get(server.url).status_code == 200
    accepted = load.stop()
    assert [settled(server, id)["crashes"] for id in running] == [0, 0]
    assert settled(server, do(server, "keeps_a_diary"))["state"] == "succeeded"
    all_succeeded(database_url, 10)
    assert set(accepted) <= {row.id for row in sql(database_url, "SELECT id FROM tasks")}
    begun = [line.split()[1] for line in diary.read_text().splitlines() if line.startswith("start")]
    assert [begun.count(id) for id in running] == [1, 1]
    assert load.statuses.keys() <= {202, 503}
    assert "Traceback" not in server.log()
    assert until_health(server, 200)["database"] == "ok"


def test_an_absent_database_buries_neither_worker(serve: Serve, tmp_path: Path) -> None:
    def beats() -> list[int]:
        return [beats for (beats,) in sql(database_url, "SELECT beats FROM workers")]

    diary, path = tmp_path / "diary", tmp_path / "service.db"
    database_url = f"sqlite:///{path}"
    servers = [serve(app=BAD_DAYS, DIARY=f"{diary}", DEAD_SECONDS="6") for _ in range(2)]
    ids = [do(server, "keeps_a_diary", seconds=14.0) for server in servers]
    until(lambda: min(beats()) > 2, 30)
    with locked(path):
        for server in servers:  # neither has beaten for longer than a dead worker is silent
            server.wait_for_log("the database is unavailable, trying again")
        before = max(beats())
        # One of them is a bit later than the other, which is no crime.
        servers[1].process.send_signal(signal.SIGSTOP)
    until(lambda: max(beats()) >= before + 2, 30)
    servers[1].process.send_signal(signal.SIGCONT)
    assert [settled(server, id)["crashes"] for server, id in zip(servers, ids, strict=True)] == [
        0,
        0,
    ]
    assert sorted(line.split()[0] for line in diary.read_text().splitlines()) == [
        "end",
        "end",
        "start",
        "start",
    ]
    assert not [server for server in servers if "declared dead" in server.log()]


@pytest.mark.parametrize(
    "failure",
    [
        "the answer to an enqueue is lost",
        "the answer to a claim is lost",
        "the answer to a settle is lost",
    ],
)
def test_lost_commit_answers_strand_no_task(serve: Serve, database_url: str, failure: str) -> None:
    server = serve(app=BAD_DAYS, DATABASE_URL=database_url, FAIL_ONCE=failure, DEAD_SECONDS=QUICK)
    assert httpx.get(f"{server.url}/health").status_code == 200
    if failure == "the answer to a claim is lost":
        insert(database_url, "keeps_a_diary")
    elif failure == "the answer to a settle is lost":
        do(server, "keeps_a_diary")
    else:
        assert post(server, "keeps_a_diary").status_code == 503
        server.wait_for_log("1 tasks were refused while the database was away, and are not stored")
        assert states(database_url) == {}
        assert "keeps_a_diary started" not in server.log()
        do(server, "keeps_a_diary")
    all_succeeded(database_url, 30)


def test_settles_failing_amid_claims_strand_none(serve: Serve, database_url: str) -> None:
    first = serve(app=BAD_DAYS, DATABASE_URL=database_url)
    assert httpx.get(f"{first.url}/health").status_code == 200
    first.stop()
    insert(database_url, "keeps_a_diary", count=3)
    # The first to be claimed.
    sql(database_url, "UPDATE tasks SET name = 'gone', run_at = 0 WHERE id LIKE '%1'")
    serve(
        app=BAD_DAYS, DATABASE_URL=database_url, FAIL_ONCE="a settle is refused", DEAD_SECONDS=QUICK
    )
    until(lambda: states(database_url) == {"succeeded": 2, "dead": 1}, 30)


# --- the disk full ---


@contextmanager
def limited_files(server: Server, size: int) -> Iterator[None]:
    """Let the server write no file beyond so many bytes."""
    resource.prlimit(server.pid, resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    yield
    resource.prlimit(
        server.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
    )


@contextmanager
def full_disk(directory: Path) -> Iterator[None]:
    """Fill the rest of the small disk."""
    filler = directory / "filler"
    with filler.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)
    yield
    filler.unlink()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "disk"
    directory.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=8m", "none", f"{directory}"],
        capture_output=True,
        check=False,
    )
    if mounted.returncode:
        pytest.skip(
            "only root may mount a small disk; the limit of a file's size is tested all the same"
        )
    yield directory
    subprocess.run(["umount", "--lazy", f"{directory}"], check=True)


def stays_whole_on_a_full_disk(server: Server, path: Path, full: Callable[[], Any]) -> None:
    def post_item() -> httpx.Response:
        return httpx.post(
            f"{server.url}/process", json={"id": 1, "filler": "x" * 15_000}, timeout=30
        )

    database_url = f"sqlite:///{path}"
    accepted = [do(server, "keeps_a_diary", seconds=3.0)]
    with full():
        answers = [post_item()]
        while answers[-1].status_code == 202 and len(answers) < 2_000:
            answers.append(post_item())
        answers.extend(post_item() for _ in range(5))
        refused = [answer for answer in answers if answer.status_code != 202]
        assert {answer.status_code for answer in refused} == {503}
        assert {answer.headers["retry-after"] for answer in refused} == {"5"}
        assert max(answer.elapsed.total_seconds() for answer in answers) < 7
        with closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        # The task ends while there is no room for its outcome.
        until(lambda: "keeps_a_diary succeeded" in server.log(), 10)
    accepted += [answer.headers["task-id"] for answer in answers if answer.status_code == 202]
    accepted.append(do(server, "keeps_a_diary"))
    until(lambda: states(database_url) == {"succeeded": len(accepted)}, 15)
    assert {row.id for row in sql(database_url, "SELECT id FROM tasks")} == set(accepted)
    with closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    assert "Traceback" not in server.log()


def test_files_that_cannot_grow_mean_503(serve: Serve, tmp_path: Path) -> None:
    server = serve(app=BAD_DAYS)
    assert httpx.get(f"{server.url}/health").status_code == 200
    stays_whole_on_a_full_disk(
        server, tmp_path / "service.db", functools.partial(limited_files, server, 512 * 1024)
    )


def test_full_disks_mean_503_until_room(serve: Serve, small_disk: Path) -> None:
    path = small_disk / "service.db"
    server = serve(app=BAD_DAYS, DATABASE_URL=f"sqlite:///{path}")
    assert httpx.get(f"{server.url}/health").status_code == 200
    stays_whole_on_a_full_disk(server, path, functools.partial(full_disk, small_disk))


@contextmanager
def no_room(database_url: str) -> Iterator[None]:
    """Have Postgres refuse every write to the tasks as on a full disk (disk_full, 53100)."""
    sql(
        database_url,
        "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION 'could not extend file, no space left on device'"
        " USING ERRCODE = 'disk_full'; END $$",
    )
    sql(
        database_url,
        "CREATE TRIGGER no_room BEFORE INSERT OR UPDATE ON tasks EXECUTE FUNCTION refuse()",
    )
    yield
    sql(database_url, "DROP TRIGGER no_room ON tasks")


@pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
def test_full_postgres_means_503_until_room(
    serve: Serve, tmp_path: Path, database_url: str
) -> None:
    server = serve(app=BAD_DAYS, DATABASE_URL=database_url, DIARY=f"{tmp_path}/diary")
    accepted = [do(server, "keeps_a_diary", seconds=1.0)]
    headers = {"Idempotency-Key": "k"}
    with no_room(database_url):
        for key in ({}, headers):
            refused = httpx.post(f"{server.url}/do/keeps_a_diary", json={}, headers=key, timeout=30)
            assert (refused.status_code, refused.headers["retry-after"]) == (503, "5")
        assert (
            httpx.post(
                f"{server.url}/users/", json={"email": "a@example.com", "username": "a"}
            ).status_code
            == 503
        )
        assert until_health(server, 503)["database"] == "down"  # though it can be read
        # The task ends while there is no room for its outcome.
        until(lambda: "keeps_a_diary succeeded" in server.log(), 10)
    again = httpx.post(f"{server.url}/do/keeps_a_diary", json={}, headers=headers)
    assert again.status_code == 202
    accepted += [again.headers["task-id"], do(server, "keeps_a_diary")]
    all_succeeded(database_url, 10)
    assert {row.id for row in sql(database_url, "SELECT id FROM tasks")} == set(accepted)
    assert sql(database_url, "SELECT id FROM users") == []
    assert (tmp_path / "diary").read_text().count("start") == len(accepted)
    assert "Traceback" not in server.log()


# --- a deploy ---


def test_unknown_tasks_revive_with_their_deploy(serve: Serve, database_url: str) -> None:
    before = serve(app=BAD_DAYS, DATABASE_URL=database_url)
    assert httpx.get(f"{before.url}/health").status_code == 200
    before.stop()
    [id] = insert(database_url, "measures", '{"text": "as ever"}')
    without = serve(DATABASE_URL=database_url)  # the real service has no such task
    task = settled(without, id)
    assert (task["state"], task["attempt"]) == ("dead", 1)
    assert task["error"]["kind"] == "UnknownTask"
    assert "'measures'" in task["error"]["message"]
    assert "deploy one that is, then retry the task" in task["error"]["message"]
    without.stop()
    after = serve(app=BAD_DAYS, DATABASE_URL=database_url)
    assert httpx.post(f"{after.url}/tasks/{id}/retry").status_code == 202
    task = settled(after, id)
    assert (task["state"], task["result"], task["error"]) == ("succeeded", 7, None)


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ('{"txt": "renamed"}', "txt"),
        ("{}", "text"),
        ('{"text": {"now": "an object"}}', "text"),
        ('{"text": "x", "more": 1}', "more"),
        ("not JSON", "JSON"),
        ("[]", "object"),
    ],
)
def test_unfit_arguments_are_kept_and_explained(day: Server, arguments: str, word: str) -> None:
    database_url = next(
        iter(Path(f"/proc/{day.pid}/environ").read_text().split("DATABASE_URL=")[1].split("\0"))
    )
    sql(database_url, "DELETE FROM tasks WHERE id LIKE 'task-20260101%'")
    [id] = insert(database_url, "measures", arguments)
    task = settled(day, id)
    assert (task["state"], task["error"]["kind"]) == ("dead", "ArgumentsRefused")
    assert word in task["error"]["message"]
    [(kept,)] = sql(database_url, "SELECT arguments FROM tasks WHERE id = :id", id=id)
    assert kept == arguments


# --- starts and ends ---


def test_simultaneous_processes_share_an_empty_database(serve: Serve, database_url: str) -> None:
    servers = [serve(app=BAD_DAYS, DATABASE_URL=database_url) for _ in range(2)]
    assert [httpx.get(f"{server.url}/health").json()["database"] for server in servers] == [
        "ok",
        "ok",
    ]
    assert [settled(server, do(server, "measures", text="x"))["result"] for server in servers] == [
        1,
        1,
    ]
    assert [server.stop() < 5 for server in servers] == [True, True]
    assert not [
        server.log() for server in servers if "Traceback" in server.log() or "ERROR" in server.log()
    ]


def test_a_hundred_thousand_waiting_delay_nothing(serve: Serve, database_url: str) -> None:
    first = serve(DATABASE_URL=database_url)
    assert httpx.get(f"{first.url}/health").status_code == 200
    first.stop()
    insert(database_url, "log_action", '{"action": "backlog"}', count=100_000)
    server = serve(
        DATABASE_URL=database_url, MAX_QUEUED="1000000", NOTIFY_SECONDS="30", DRAIN_SECONDS="0.5"
    )
    health = httpx.get(f"{server.url}/health").json()
    assert health["worker"]["queued"] > 50_000
    assert health["worker"]["oldest_waiting"] > 0
    answer = httpx.get(f"{server.url}/test")
    assert answer.status_code == 200
    assert answer.elapsed.total_seconds() < 2
    until(lambda: states(database_url).get("succeeded", 0) > 5_000, 30)
    assert httpx.get(f"{server.url}/health").json()["worker"]["rate"] > 0
    load = Load(server.url, "/api/notifications/notify")
    until(lambda: len(load.accepted) > 20, 20)
    server.process.send_signal(signal.SIGTERM)
    server.wait_for_log("Waiting for application shutdown|draining|Shutting down")
    assert server.stop() < 10  # the second SIGTERM
    accepted = load.stop()
    assert states(database_url).keys() == {"succeeded", "queued"}
    assert sql(database_url, "SELECT DISTINCT attempt FROM tasks WHERE state = 'queued'") == [(0,)]
    assert {
        row.id for row in sql(database_url, "SELECT id FROM tasks WHERE name <> 'log_action'")
    } >= {*accepted}


def test_a_backlog_drains_to_its_end(serve: Serve, database_url: str) -> None:
    first = serve(DATABASE_URL=database_url)
    assert httpx.get(f"{first.url}/health").status_code == 200
    first.stop()
    insert(database_url, "log_action", '{"action": "backlog"}', count=5_000)
    server = serve(DATABASE_URL=database_url)
    until(lambda: states(database_url) == {"succeeded": 5_000}, 30)
    # At the next beat.
    until(lambda: httpx.get(f"{server.url}/health").json()["worker"]["oldest_waiting"] == 0, 20)


# --- the clock set back ---


def test_queued_tasks_ignore_clocks_set_back(serve: Serve, database_url: str) -> None:
    first = serve(app=BAD_DAYS, DATABASE_URL=database_url)
    assert httpx.get(f"{first.url}/health").status_code == 200
    first.stop()
    ids = insert(database_url, "keeps_a_diary", count=2)
    # Seen from a clock that was set back, the rows were written an hour from now.
    sql(
        database_url,
        "UPDATE tasks SET created_at = created_at + :hour, run_at = run_at + :hour",
        hour=HOUR,
    )
    sql(
        database_url,
        "UPDATE tasks SET state = 'retrying', attempt = 1, started_at = run_at WHERE id = :id",
        id=ids[1],
    )
    serve(app=BAD_DAYS, DATABASE_URL=database_url)
    all_succeeded(database_url, 5)


def test_successors_ignore_clocks_set_back(serve: Serve, database_url: str) -> None:
    first = serve(app=BAD_DAYS, DATABASE_URL=database_url)
    assert httpx.get(f"{first.url}/health").status_code == 200
    first.stop()
    ids = insert(database_url, "keeps_a_diary", count=2)
    sql(
        database_url,
        "UPDATE tasks SET created_at = created_at + :hour, run_at = run_at + :hour",
        hour=HOUR,
    )
    sql(database_url, "UPDATE tasks SET follows = :first WHERE id = :id", first=ids[0], id=ids[1])
    serve(app=BAD_DAYS, DATABASE_URL=database_url)
    all_succeeded(database_url, 20)


def test_turned_clocks_rescue_only_killed_workers(
    serve: Serve, tmp_path: Path, database_url: str
) -> None:
    day = {
        "app": BAD_DAYS,
        "DATABASE_URL": database_url,
        "DIARY": f"{tmp_path}/diary",
        "DEAD_SECONDS": QUICK,
    }
    killed, alive = serve(**day), serve(**day)
    lost, kept = do(killed, "keeps_a_diary", seconds=60), do(alive, "keeps_a_diary", seconds=4)
    killed.wait_for_log("keeps_a_diary started")
    killed.kill()
    columns = ("created_at", "run_at", "started_at")
    sql(
        database_url,
        "UPDATE tasks SET " + ", ".join(f"{name} = {name} + {HOUR}" for name in columns),
    )
    sql(database_url, "UPDATE tasks SET arguments = '{\"seconds\": 0}' WHERE id = :id", id=lost)
    assert [
        (task["state"], task["crashes"]) for task in (settled(alive, lost), settled(alive, kept))
    ] == [
        ("succeeded", 1),
        ("succeeded", 0),
    ]


def test_running_services_ignore_clocks_set_back(serve: Serve, tmp_path: Path) -> None:
    if not Path(FAKETIME).exists():
        why = "only it can set back a process's clock"
        pytest.skip(f"Debian's package libfaketime is not installed, and {why}")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    server = serve(
        app=BAD_DAYS,
        DIARY=f"{tmp_path}/diary",
        LD_PRELOAD=FAKETIME,
        FAKETIME_TIMESTAMP_FILE=f"{clock}",
        FAKETIME_NO_CACHE="1",
        FAKETIME_DONT_FAKE_MONOTONIC="1",
        DEAD_SECONDS=QUICK,
    )
    running, retried = (
        do(server, "keeps_a_diary", seconds=2.0),
        do(server, "asks_for_time", seconds=1.0),
    )
    server.wait_for_log("asks_for_time will be tried again")
    clock.write_text("-3600")
    after = do(server, "asks_for_time", seconds=1.0)
    [(written,)] = sql(
        f"sqlite:///{tmp_path}/service.db", "SELECT created_at FROM tasks WHERE id = :id", id=after
    )
    assert written / 1e6 < time.time() - 3000  # the service's clock is another one indeed
    assert settled(server, after)["state"] == "succeeded"
    assert settled(server, running)["state"] == "succeeded"
    assert settled(server, do(server, "keeps_a_diary"))["state"] == "succeeded"
    assert settled(server, retried)["state"] == "succeeded"
