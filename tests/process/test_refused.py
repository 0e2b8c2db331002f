"""What is answered with a 5xx never runs, with a 2xx it runs once: the commit decides."""

import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

from tests import proxy, serving
from tests.databases import empty_database, locked
from tests.proxy import Link, Proxy
from tests.serving import Server, sql, until

# The fixture `database_url` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")

Serve = Callable[..., Server]
Fate = Callable[[Link, bytes], bytes]
BAD_DAYS = "tests.process.bad_days_app:app"
QUICK = "1"  # seconds of silence after which a worker is dead; it beats five times as often
ADA = {"email": "ada@example.com", "username": "ada"}
ON_POSTGRES = pytest.mark.parametrize("database_url", ["postgres"], indirect=True)
STORED: list[Fate] = [proxy.cut_behind, proxy.silent_behind]
NOT_STORED: list[Fate] = [proxy.cut_before, proxy.silent_before]


def post(server: Server, seconds: float = 0.0, key: str = "") -> httpx.Response:
    headers = {"Idempotency-Key": key} if key else {}
    return httpx.post(
        f"{server.url}/do/keeps_a_diary", json={"seconds": seconds}, headers=headers, timeout=60
    )


@pytest.fixture
def diary(tmp_path: Path) -> Path:
    path = tmp_path / "diary"
    path.touch()
    return path


def started(diary: Path) -> Counter[str]:
    return Counter(
        line.split()[1] for line in diary.read_text().splitlines() if line.startswith("start")
    )


def some_beats_pass(database_url: str) -> None:
    """Wait for several beats of the worker; at the second it gives a stray back."""
    [(before,)] = sql(database_url, "SELECT beats FROM workers")
    until(lambda: sql(database_url, "SELECT beats FROM workers")[0].beats > before + 5, 30)


def only_the_accepted_run(database_url: str, diary: Path, answers: list[httpx.Response]) -> None:
    accepted = [answer.headers["task-id"] for answer in answers if answer.status_code == 202]
    until(lambda: {*started(diary)} >= {*accepted}, 20)
    some_beats_pass(database_url)
    assert started(diary) == Counter(accepted)
    assert {row.id for row in sql(database_url, "SELECT id FROM tasks")} == {*accepted}


@contextmanager
def many_posts(server: Server) -> Iterator[list["Future[httpx.Response]"]]:
    with ThreadPoolExecutor(56) as clients:
        yield [clients.submit(post, server) for _ in range(56)]


class Behind(NamedTuple):
    """A service whose database is behind a proxy; `database_url` is another way to it."""

    server: Server
    between: Proxy
    database_url: str
    diary: Path

    def only_the_accepted_run(self, *answers: httpx.Response) -> None:
        only_the_accepted_run(self.database_url, self.diary, [*answers])


@pytest.fixture(scope="module")
async def database_of_all(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    async with empty_database("postgres", tmp_path_factory.mktemp("all")) as url:
        yield url


@pytest.fixture(scope="module")
def service_of_all(
    database_of_all: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Behind]:
    directory = tmp_path_factory.mktemp("service")
    diary = directory / "diary"
    day = {"DIARY": f"{diary}", "DEAD_SECONDS": QUICK}
    with Proxy(database_of_all) as between:
        server = serving.start(directory, app=BAD_DAYS, DATABASE_URL=between.url, **day)
        assert httpx.get(f"{server.url}/health").status_code == 200
        yield Behind(server, between, database_of_all, diary)
        server.kill()


@pytest.fixture
def behind(service_of_all: Behind) -> Behind:
    service_of_all.between.thaw()
    for table in ("tasks", "users", "answers"):
        sql(service_of_all.database_url, f"DELETE FROM {table}")
    service_of_all.diary.write_text("")
    return service_of_all


# --- a commit that is pending ---


def test_a_starved_commit_starts_nothing(serve: Serve, tmp_path: Path, diary: Path) -> None:
    failure = "others have the write lock whenever it is free"
    server = serve(app=BAD_DAYS, DIARY=f"{diary}", DEAD_SECONDS=QUICK, FAIL_ONCE=failure)
    assert httpx.get(f"{server.url}/health").status_code == 200
    refused = post(server)
    assert refused.status_code == 503
    only_the_accepted_run(f"sqlite:///{tmp_path}/service.db", diary, [refused, post(server)])


@contextmanager
def slow_inserts(database_url: str, seconds: float) -> Iterator[None]:
    """Have Postgres take so long for each insert into the tasks, and for nothing else."""
    sql(
        database_url,
        "CREATE OR REPLACE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$ BEGIN PERFORM pg_sleep({seconds}); RETURN NEW; END $$",
    )
    sql(database_url, "CREATE TRIGGER slow BEFORE INSERT ON tasks EXECUTE FUNCTION dawdle()")
    yield
    sql(database_url, "DROP TRIGGER slow ON tasks")


@pytest.mark.parametrize(("seconds", "status"), [(3.0, 202), (20.0, 503)])
def test_nothing_starts_before_its_commit(behind: Behind, seconds: float, status: int) -> None:
    with slow_inserts(behind.database_url, seconds), ThreadPoolExecutor(1) as client:
        posted = client.submit(post, behind.server)
        some_beats_pass(behind.database_url)  # more than the second that an answer may take to go
        some_beats_pass(behind.database_url)
        is_pending, begun = not posted.done(), started(behind.diary)
        answer = posted.result()
    assert answer.status_code == status
    assert not (is_pending and begun)
    behind.only_the_accepted_run(answer)


def test_tasks_cut_by_shutdown_never_run(serve: Serve, tmp_path: Path, diary: Path) -> None:
    day = {"app": BAD_DAYS, "DIARY": f"{diary}", "DEAD_SECONDS": QUICK}
    server = serve(**day, DRAIN_SECONDS="6", args=["--timeout-graceful-shutdown", "1"])
    running = post(server, seconds=60.0)
    until(lambda: {*started(diary)} == {running.headers["task-id"]}, 5)
    with ThreadPoolExecutor(1) as client, locked(tmp_path / "service.db"):
        posted = client.submit(post, server)
        # So that the request is there; if it is not, it is refused, which proves nothing.
        time.sleep(0.5)
        server.process.terminate()
        answer = posted.result()  # while the commit is pending
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    server.process.wait(30)
    [left] = sql(f"sqlite:///{tmp_path}/service.db", "SELECT id, state FROM tasks")
    assert (left.id, left.state) == (running.headers["task-id"], "queued")


# --- a commit whose answer is lost ---


@pytest.mark.parametrize("key", ["", "k"], ids=["without a key", "with a key"])
@pytest.mark.parametrize("fate", STORED)
def test_what_was_committed_is_accepted(behind: Behind, fate: Fate, key: str) -> None:
    behind.between.strike(fate, "keeps_a_diary")
    answer = post(behind.server, key=key)
    assert behind.between.has_struck.is_set()
    assert answer.status_code == 202
    behind.only_the_accepted_run(answer)


@pytest.mark.parametrize("fate", NOT_STORED)
def test_a_commit_that_never_came_is_repeated(behind: Behind, fate: Fate) -> None:
    behind.between.strike(fate, "keeps_a_diary")
    answer = post(behind.server)
    assert behind.between.has_struck.is_set()
    assert answer.status_code == 202
    behind.between.thaw()  # the first try reaches the server after all, if it was held back
    behind.only_the_accepted_run(answer)


@pytest.mark.parametrize("fate", NOT_STORED)
def test_a_transaction_that_never_came_is_not(behind: Behind, fate: Fate) -> None:
    behind.between.strike(fate, "keeps_a_diary")
    answer = post(behind.server, key="k")  # the key and the task are one transaction
    assert behind.between.has_struck.is_set()
    assert answer.status_code == 503
    behind.between.thaw()
    again = post(behind.server, key="k")
    assert again.status_code == 202
    behind.only_the_accepted_run(answer, again)


def test_a_silent_database_starts_nothing(behind: Behind) -> None:
    behind.between.strike(behind.between.freeze_behind, "keeps_a_diary")
    with many_posts(behind.server) as posted:
        answers = [each.result() for each in posted]
    assert {answer.status_code for answer in answers} == {503}
    behind.between.thaw()
    behind.only_the_accepted_run(*answers, post(behind.server), post(behind.server))


@ON_POSTGRES
def test_tasks_awaiting_slots_are_withdrawn(serve: Serve, database_url: str, diary: Path) -> None:
    with Proxy(database_url) as between:
        day = {
            "app": BAD_DAYS,
            "DATABASE_URL": between.url,
            "DIARY": f"{diary}",
            "DEAD_SECONDS": QUICK,
        }
        server = serve(**day, MAX_RUNNING="1")
        running = post(server, seconds=20.0)
        assert running.status_code == 202
        between.strike(between.freeze_behind, "keeps_a_diary")
        refused = post(server)
        assert refused.status_code == 503
        between.thaw()
        server.wait_for_log("1 tasks were refused while the database was away")
        only_the_accepted_run(database_url, diary, [running, refused])


@pytest.mark.parametrize(("fate", "status"), [(proxy.cut_behind, 201), (proxy.cut_before, 503)])
def test_handlers_lost_commits_are_asked_for(behind: Behind, fate: Fate, status: int) -> None:
    behind.between.strike(fate, "send_welcome_mail")
    answer = httpx.post(f"{behind.server.url}/users/", json=ADA, timeout=60)
    assert behind.between.has_struck.is_set()
    assert answer.status_code == status
    found = [sql(behind.database_url, f"SELECT id FROM {table}") for table in ("users", "tasks")]
    assert [len(rows) for rows in found] == ([1, 1] if status == 201 else [0, 0])


def test_handlers_own_commits_may_stay_unknown(behind: Behind) -> None:
    behind.between.strike(behind.between.freeze_behind, "send_welcome_mail")
    answer = httpx.post(f"{behind.server.url}/users/", json=ADA, timeout=60)
    assert answer.status_code == 503
    assert "is not known" in answer.json()["detail"]
    behind.between.thaw()
    found = [sql(behind.database_url, f"SELECT id FROM {table}") for table in ("users", "tasks")]
    assert [len(rows) for rows in found] == [1, 1]  # both or neither


def test_keys_stay_open_until_outcome_known(behind: Behind) -> None:
    behind.between.strike(behind.between.freeze_behind, "keeps_a_diary")
    answer = post(behind.server, key="k")
    assert (answer.status_code, answer.headers["retry-after"]) == (409, "1")
    behind.between.thaw()
    until(lambda: post(behind.server, key="k").status_code == 202, 20)
    behind.only_the_accepted_run(post(behind.server, key="k"))


# --- too many at once ---


def test_only_what_may_wait_is_accepted(serve: Serve, database_url: str, diary: Path) -> None:
    server = serve(
        app=BAD_DAYS, DATABASE_URL=database_url, MAX_QUEUED="20", MAX_RUNNING="4", DRAIN_SECONDS="0"
    )
    assert httpx.get(f"{server.url}/health").status_code == 200
    with ThreadPoolExecutor(60) as clients:
        answers = [
            each.result() for each in [clients.submit(post, server, 60.0) for _ in range(120)]
        ]
    assert Counter(answer.status_code for answer in answers) == {202: 24, 503: 96}
    assert (
        min(int(answer.headers["retry-after"]) for answer in answers if answer.status_code == 503)
        > 0
    )
    assert httpx.get(f"{server.url}/health").json()["worker"]["queued"] == 20


def test_waiting_tasks_count_beyond_the_bound(serve: Serve, database_url: str) -> None:
    many = serve(app=BAD_DAYS, DATABASE_URL=database_url, MAX_RUNNING="1", DRAIN_SECONDS="0")
    for _ in range(6):
        assert post(many, seconds=60.0).status_code == 202
    few = serve(
        app=BAD_DAYS, DATABASE_URL=database_url, MAX_RUNNING="1", MAX_QUEUED="2", DRAIN_SECONDS="0"
    )
    assert httpx.get(f"{few.url}/health").json()["worker"]["queued"] >= 4
    until(lambda: post(few, seconds=60.0).status_code == 503, 10)  # it counts every two seconds
