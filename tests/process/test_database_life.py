"""A database that is late, read-only, lost or set back: the service says so, and waits."""

import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.bad_days import BAD_DAYS, Serve, all_succeeded, do, settled
from tests.databases import locked, not_writing
from tests.diary import by_task, runs
from tests.postgres import Postgres, frozen, stopped
from tests.serving import Server, sql, until, until_health

# The fixture `database_url` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")


def refuses(server: Server) -> None:
    """Assert that whatever needs the database is answered 503, and that the rest is not."""
    for method, path in (
        ("POST", "/do/keeps_a_diary"),
        ("GET", "/users/"),
        ("GET", "/tasks"),
        ("GET", "/tasks/x"),
    ):
        answer = httpx.request(method, server.url + path, json={}, timeout=30)
        assert (answer.status_code, answer.headers["content-type"]) == (
            503,
            "application/problem+json",
        ), path
        assert int(answer.headers["retry-after"]) > 0
    assert httpx.get(server.url).status_code == 200
    assert until_health(server, 503)["database"] == "down"


# --- at the start ---


def test_a_start_waits_for_absent_postgres(serve: Serve, postgres: Postgres) -> None:
    with stopped(postgres):
        server = serve(app=BAD_DAYS, DATABASE_URL=postgres.url)
        refuses(server)
        refuses(server)
    until_health(server, 200)
    assert settled(server, do(server, "measures", text="x"))["result"] == 1
    assert server.log().count("the database is unavailable, trying again") == 1
    assert "the database is back" in server.log()
    assert "Traceback" not in server.log()


def test_waiting_for_postgres_can_be_stopped(serve: Serve, postgres: Postgres) -> None:
    with stopped(postgres):
        server = serve(DATABASE_URL=postgres.url)
        assert httpx.get(server.url).status_code == 200
        assert server.stop() < 20
    assert "Traceback" not in server.log()


def test_a_start_awaits_its_unmade_database(serve: Serve, postgres: Postgres) -> None:
    server = serve(app=BAD_DAYS, DATABASE_URL=postgres.url.removesuffix("postgres") + "tomorrow")
    refuses(server)
    assert server.log().count('trying again: database "tomorrow" does not exist') == 1
    execute_alone(postgres, "CREATE DATABASE tomorrow")
    until_health(server, 200)
    assert settled(server, do(server, "measures", text="x"))["result"] == 1
    assert "Traceback" not in server.log()


def execute_alone(postgres: Postgres, statement: str) -> None:
    psql = max(Path("/usr/lib/postgresql").glob("*/bin/psql"))
    subprocess.run([psql, postgres.url, "-q", "-c", statement], check=True, timeout=60)


def test_wrong_files_fail_in_one_line(serve: Serve, tmp_path: Path) -> None:
    (tmp_path / "service.db").write_text("my notes")
    server = serve()
    assert server.process.wait(20) == 3
    server.stop(0)
    said = f"{tmp_path}/service.db is no SQLite database, takes the path of one, or of no file yet"
    assert server.log() == f"wrong setting: DATABASE_URL: {said}\n"


def test_a_database_spoilt_inside_means_503(serve: Serve, tmp_path: Path) -> None:
    path = tmp_path / "service.db"
    first = serve()
    until_health(first, 200)
    first.stop()
    with path.open("r+b") as file:
        file.seek(100)
        file.write(b"x" * 20_000)
    server = serve()
    assert httpx.post(f"{server.url}/action").status_code == 503
    until_health(server, 503)
    assert "malformed" in server.log()
    assert "Traceback" not in server.log()


# --- health ---


def test_health_notices_a_database_refusing_writes(serve: Serve, tmp_path: Path) -> None:
    server = serve()
    assert until_health(server, 200)["worker"]["status"] == "ok"
    with locked(tmp_path / "service.db"):
        assert until_health(server, 503)["worker"]["status"] == "waits for the database"
        assert httpx.get(f"{server.url}/users/").status_code == 200  # it can be read
    assert until_health(server, 200)["database"] == "ok"


def test_health_queues_behind_nobody(serve: Serve, postgres: Postgres) -> None:
    """While Postgres hangs and everybody waits for it, the answer is there before any of theirs."""
    server = serve(app=BAD_DAYS, DATABASE_URL=postgres.url)
    until_health(server, 200)
    with (
        httpx.Client(base_url=server.url, timeout=30) as client,
        ThreadPoolExecutor(30) as threads,
        frozen(postgres),
    ):
        waiting = [threads.submit(client.post, "/do/keeps_a_diary", json={}) for _ in range(30)]
        asked = [client.get("/health") for _ in range(5)]
        assert not [each for each in waiting if each.done()]
        assert {answer.status_code for answer in asked} <= {200, 503}
        assert {each.result().status_code for each in waiting} == {503}


# --- the file gone ---


def remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm"):
        path.with_name(path.name + suffix).unlink()


def replace(path: Path) -> None:
    with (
        closing(sqlite3.connect(path)) as source,
        closing(sqlite3.connect(path.with_name("copy"))) as copy,
    ):
        source.backup(copy)
    remove(path)
    path.with_name("copy").rename(path)


def remove_the_log(path: Path) -> None:
    path.with_name(path.name + "-wal").unlink()


@pytest.mark.parametrize(
    ("lose", "is_kept"), [(remove, False), (replace, True), (remove_the_log, True)]
)
def test_a_lost_file_takes_nothing_more(
    serve: Serve, tmp_path: Path, lose: Callable[[Path], None], *, is_kept: bool
) -> None:
    path = tmp_path / "service.db"
    server = serve(app=BAD_DAYS)
    id = do(server, "keeps_a_diary")
    settled(server, id)
    lose(path)
    refuses(server)
    assert path.exists() == is_kept  # nobody has made an empty one in its place
    server.wait_for_log(
        f"trying again: {path} was deleted or replaced .*put it back .*, or restart the service"
    )
    assert "Traceback" not in server.log()
    assert server.stop() < 20
    again = serve(app=BAD_DAYS)
    assert settled(again, do(again, "keeps_a_diary"))["state"] == "succeeded"
    if lose is replace:
        assert settled(again, id)["state"] == "succeeded"


def test_a_restored_file_is_used_again(serve: Serve, tmp_path: Path) -> None:
    path, aside = tmp_path / "service.db", tmp_path / "aside"
    server = serve(app=BAD_DAYS)
    before = do(server, "keeps_a_diary")
    settled(server, before)
    path.rename(aside)
    refuses(server)
    aside.rename(path)
    until_health(server, 200)
    after = do(server, "keeps_a_diary")
    assert {settled(server, id)["state"] for id in (before, after)} == {"succeeded"}


# --- stood still ---


def test_thawed_processes_drop_what_others_run(
    serve: Serve, tmp_path: Path, database_url: str
) -> None:
    day = {
        "app": BAD_DAYS,
        "DATABASE_URL": database_url,
        "DIARY": f"{tmp_path}/diary",
        "DEAD_SECONDS": "2",
    }
    still, other = serve(**day), serve(**day)
    until_health(still, 200)
    until_health(other, 200)
    # They have met.
    until(lambda: sql(database_url, "SELECT min(beats) FROM workers")[0][0] > 3, 20)
    with httpx.Client(base_url=still.url, timeout=30) as client:
        posted = [client.post("/do/keeps_a_diary", json={"seconds": 3.0}) for _ in range(10)]
        ids = [each.headers["task-id"] for each in posted]
        still.wait_for_log("(?s)(keeps_a_diary started.*){10}")
    with not_writing(database_url):
        still.process.send_signal(signal.SIGSTOP)
    all_succeeded(database_url, ids, 60)
    still.process.send_signal(signal.SIGCONT)
    dropping = "others may run its tasks by now; it drops what it runs"
    still.wait_for_log(f"this process stood still for .* s, and {dropping}")
    assert {settled(other, id)["result"] for id in ids} == {other.pid}
    mine = by_task(runs(tmp_path / "diary"))
    assert {id: [run.pid for run in mine[id] if run.ended] for id in ids} == {
        id: [other.pid] for id in ids
    }
    after = do(still, "keeps_a_diary")  # under another identity
    assert (settled(still, after)["crashes"], until_health(still, 200)["status"]) == (0, "ok")


def test_a_process_thawed_alone_goes_on(serve: Serve, tmp_path: Path, database_url: str) -> None:
    day = {
        "app": BAD_DAYS,
        "DATABASE_URL": database_url,
        "DIARY": f"{tmp_path}/diary",
        "DEAD_SECONDS": "1",
    }
    server = serve(**day)
    id = do(server, "keeps_a_diary", seconds=1.0)
    server.wait_for_log("keeps_a_diary started")
    with not_writing(database_url):
        server.process.send_signal(signal.SIGSTOP)
    began = time.monotonic()
    until(lambda: time.monotonic() > began + 3, 10)
    server.process.send_signal(signal.SIGCONT)
    task = settled(server, id)
    assert (task["state"], task["attempt"], task["crashes"]) == ("succeeded", 1, 0)
    assert (tmp_path / "diary").read_text().count("start") == 1
    assert "it drops what it runs" not in server.log()
