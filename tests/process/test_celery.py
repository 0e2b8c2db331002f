"""The same tasks on a fleet: web processes publish, workers run, the rows say what became of it."""

import httpx
import pytest

from tests.fleet import EVERY_BROKER, NO_SERVER, Fleet, posted, running
from tests.serving import sql, until

# The fixture `fleet` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")


def task_of(url: str, id: str, wait: float = 20) -> dict[str, object]:
    answer: dict[str, object] = httpx.get(
        f"{url}/tasks/{id}", params={"wait": wait}, timeout=30
    ).json()
    return answer


@EVERY_BROKER
def test_workers_keep_accepted_ids_and_urls(
    fleet: Fleet,
) -> None:
    web, worker = fleet.web(), fleet.worker()
    for name in ("keeps_a_diary", "keeps_a_diary_in_a_thread"):
        answer = httpx.post(f"{web.url}/do/{name}", json={"seconds": 0.01})
        id = answer.headers["task-id"]
        assert answer.headers["location"] == f"/tasks/{id}"
        shown = task_of(web.url, id)
        assert (shown["state"], shown["attempt"], shown["name"]) == ("succeeded", 1, name)
        assert shown["result"] != web.pid
        worker.wait_for_log(f"{name} started  task={id}")
        worker.wait_for_log(rf"{name} succeeded in .* task={id}")
        assert f"{name} started" not in web.log()


@NO_SERVER
def test_equal_idempotency_keys_give_one_task(fleet: Fleet) -> None:
    web, worker = fleet.web(), fleet.worker()
    answers = [
        httpx.post(f"{web.url}/action", headers={"Idempotency-Key": "one"}) for _ in range(3)
    ]
    [id] = {answer.headers["task-id"] for answer in answers}
    fleet.all_succeed([id], 20)
    assert worker.log().count("log_action started") == 1


@EVERY_BROKER
def test_the_table_keeps_retries_and_deaths(fleet: Fleet) -> None:
    web, _ = fleet.web(), fleet.worker()
    ids = {
        name: httpx.post(f"{web.url}/do/{name}", json=body).headers["task-id"]
        for name, body in {
            "raises_until_the_third": {},
            "raises": {},
            "asks_for_time": {"seconds": 1.0},
            "hangs": {},
            "gives_up": {},
        }.items()
    }
    ends = {name: task_of(web.url, id) for name, id in ids.items()}
    assert {name: (end["state"], end["attempt"]) for name, end in ends.items()} == {
        "raises_until_the_third": ("succeeded", 3),
        "raises": ("dead", 3),
        "asks_for_time": ("succeeded", 2),
        "hangs": ("dead", 2),
        "gives_up": ("dead", 1),
    }
    assert ends["raises_until_the_third"]["result"] == "third time lucky"
    assert [
        row.crashes for row in sql(fleet.database_url, "SELECT DISTINCT crashes FROM tasks")
    ] == [0]


@NO_SERVER
def test_undecorated_functions_run_in_web_processes(fleet: Fleet) -> None:
    web = fleet.web()
    assert httpx.get(f"{web.url}/in_memory").status_code == 200
    web.wait_for_log("remembered started")
    web.wait_for_log("remembered succeeded")


def test_a_person_cancels_a_workers_task(fleet: Fleet) -> None:
    web, worker = fleet.web(), fleet.worker()
    id = httpx.post(f"{web.url}/do/keeps_a_diary", json={"seconds": 60}).headers["task-id"]
    worker.wait_for_log("keeps_a_diary started")
    assert httpx.delete(f"{web.url}/tasks/{id}").json()["state"] == "cancelled"
    worker.wait_for_log("keeps_a_diary released")
    again = httpx.post(f"{web.url}/do/keeps_a_diary", json={}).headers["task-id"]
    fleet.all_succeed([again], 20)  # its slot is free


def test_health_names_the_broker_without_password(fleet: Fleet) -> None:
    web = fleet.web()
    fleet.worker()
    id = posted(web.url, 3)
    running(fleet, id)
    # As of the last beat.
    until(lambda: httpx.get(f"{web.url}/health").json()["worker"]["running"] == 1, 5)
    shown = httpx.get(f"{web.url}/health").json()
    assert (shown["status"], shown["worker"]["queued"]) == ("ok", 0)
    assert shown["worker"]["broker"] == {"address": fleet.broker.address, "status": "up"}
    assert "guest" not in str(shown)


def test_operators_see_and_steer_workers_normally(fleet: Fleet) -> None:
    web, worker = fleet.web(), fleet.worker()
    assert "pong" in fleet.control("inspect", "ping")
    assert "keeps_a_diary_in_a_thread" in fleet.control("inspect", "registered")
    id = httpx.post(f"{web.url}/do/keeps_a_diary", json={"seconds": 15}).headers["task-id"]
    worker.wait_for_log("keeps_a_diary started")
    active = fleet.control("inspect", "active")
    assert id in active
    assert "'keeps_a_diary'" in active
    fleet.control("control", "shutdown")
    worker.process.wait(60)
    fleet.all_succeed([id], 1)  # it was waited for
    fleet.each_ran_once([id])


@NO_SERVER
def test_workers_on_another_database_say_so(
    fleet: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    web = fleet.web()
    astray = fleet.worker(DATABASE_URL=f"sqlite:///{tmp_path_factory.mktemp('another')}/service.db")
    id = httpx.post(f"{web.url}/do/keeps_a_diary", json={}).headers["task-id"]
    astray.wait_for_log(
        f"ERROR .*keeps_a_diary {id} is not in this worker's database, .*set the same DATABASE_URL"
    )
    assert [row.state for row in fleet.rows([id]).values()] == ["queued"]
    astray.stop()
    fleet.worker()
    fleet.all_succeed([id], 20)
    until(lambda: "broker" in httpx.get(f"{web.url}/health").json()["worker"], 5)
