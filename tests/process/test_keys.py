"""An Idempotency-Key whose first request died: the second gives the same tasks."""

import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.serving import Server, sql, until

# The fixture `database_url` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")

Serve = Callable[..., Server]
BAD_DAYS = "tests.process.bad_days_app:app"
KEPT, SENT = "before an answer is kept", "before an answer is sent"
ADA = {"email": "ada@example.com", "username": "ada"}


def post(server: Server, path: str, body: object, key: str = "k") -> httpx.Response:
    return httpx.post(
        f"{server.url}{path}", json=body, headers={"Idempotency-Key": key}, timeout=20
    )


@pytest.fixture
def after_death(
    serve: Serve, tmp_path: Path, database_url: str
) -> Callable[[str, str, object], Callable[[], httpx.Response]]:
    """Post with a key to a service that dies at a step; give what posts it to the next one."""

    def dying(step: str, path: str, body: object) -> Callable[[], httpx.Response]:
        day = {"app": BAD_DAYS, "DATABASE_URL": database_url, "DEAD_SECONDS": "1"}
        first = serve(**day, DIE_ONCE=step, DIED=f"{tmp_path}/died")
        with pytest.raises(httpx.TransportError):
            post(first, path, body)
        assert first.process.wait(10) == -signal.SIGKILL
        second = serve(**day)
        return lambda: post(second, path, body)

    return dying


def one_task_succeeds(database_url: str) -> str:
    def succeeded() -> list[str]:
        return [
            row.id for row in sql(database_url, "SELECT id FROM tasks WHERE state = 'succeeded'")
        ]

    until(succeeded, 10)
    [task] = sql(database_url, "SELECT id FROM tasks")
    return str(task.id)


@pytest.mark.parametrize("step", [KEPT, SENT])
def test_attached_tasks_are_answered_at_once(
    after_death: Callable[..., Callable[[], httpx.Response]], database_url: str, step: str
) -> None:
    again = after_death(step, "/do/keeps_a_diary", {})
    answers = [again(), again()]
    assert [answer.status_code for answer in answers] == [202, 202]
    id = one_task_succeeds(database_url)
    assert [(answer.text, answer.headers["task-id"]) for answer in answers] == [("ok", id)] * 2


def test_self_stored_tasks_wait_one_minute(
    after_death: Callable[..., Callable[[], httpx.Response]], database_url: str
) -> None:
    again = after_death(KEPT, "/users/", ADA)
    refused = again()
    assert (refused.status_code, refused.headers["retry-after"]) == (409, "1")
    id = one_task_succeeds(database_url)
    sql(database_url, "UPDATE answers SET created_at = created_at - 40000000")
    assert again().status_code == 409
    sql(database_url, "UPDATE answers SET created_at = created_at - 20000000")
    answers = [again(), again()]
    assert [answer.status_code for answer in answers] == [202, 202]
    assert {answer.headers["task-id"] for answer in answers} == {id}
    assert {answer.headers["location"] for answer in answers} == {f"/tasks/{id}"}
    assert one_task_succeeds(database_url) == id
    assert sql(database_url, "SELECT username FROM users") == [("ada",)]


def test_self_stored_kept_answers_are_repeated(
    after_death: Callable[..., Callable[[], httpx.Response]], database_url: str
) -> None:
    answer = after_death(SENT, "/users/", ADA)()
    assert (answer.status_code, answer.json()["username"]) == (201, "ada")
    assert answer.headers["task-id"] == one_task_succeeds(database_url)


@pytest.mark.parametrize(
    ("path", "body", "status"), [("/users/", ADA, 201), ("/do/keeps_a_diary", {}, 503)]
)
def test_unkept_answers_still_tell_the_truth(
    serve: Serve, database_url: str, path: str, body: object, status: int
) -> None:
    server = serve(app=BAD_DAYS, DATABASE_URL=database_url, FAIL_ONCE="an answer cannot be kept")
    first, again = [post(server, path, body) for _ in range(2)]
    assert first.status_code == status
    # What could not be stored with its answer was not stored at all.
    assert again.status_code == {201: 409, 503: 202}[status]
    one_task_succeeds(database_url)


def test_two_at_once_add_one_user(serve: Serve, database_url: str) -> None:
    server = serve(DATABASE_URL=database_url)
    for number in range(10):
        body = {"email": f"ada{number}@example.com", "username": f"ada{number}"}
        with ThreadPoolExecutor(2) as pool:
            answers = [*pool.map(partial(post, server, "/users/", body), [f"k{number}"] * 2)]
        # The second is told so, or gets the first one's answer; never that there is such a user.
        assert all(answer.status_code == 201 or "under way" in answer.text for answer in answers)
        assert post(server, "/users/", body, f"k{number}").status_code == 201
    assert post(server, "/users/", body, "another key").status_code == 409
    assert len(sql(database_url, "SELECT id FROM tasks")) == 10
