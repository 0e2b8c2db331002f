"""A fleet on bad days: what was accepted succeeds, and never runs twice at once."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.diary import by_task, never_at_the_same_time, runs
from tests.fleet import NO_SERVER, Fleet, posted, running
from tests.serving import Load, sql, until

# The fixture `fleet` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")

HOUR = 3_600_000_000  # in the rows' microseconds


def queued_by_redis(fleet: Fleet) -> int:
    command = ["redis-cli", "-p", str(fleet.broker.port), "LLEN", fleet.variables["QUEUE"]]
    return int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


@pytest.fixture
def revived(fleet: Fleet) -> Iterator[Fleet]:
    """A fleet whose broker may be killed: the tests that come after find it alive."""
    yield fleet
    if not fleet.broker.is_up():
        fleet.broker.start()


def test_a_workers_killed_process_loses_nothing(fleet: Fleet) -> None:
    web, worker = fleet.web(), fleet.worker()
    id = posted(web.url, 8)
    doomed = running(fleet, id)
    others = [posted(web.url, 0.2) for _ in range(10)]
    os.kill(doomed, signal.SIGKILL)
    killed_at = time.monotonic()
    fleet.all_succeed([id, *others], 60)
    never_at_the_same_time(fleet.diary, {doomed: killed_at})
    row = fleet.rows([id])[id]
    assert (row.attempt, row.crashes) == (1, 1)
    assert worker.process.poll() is None


def test_another_worker_runs_a_killed_ones(fleet: Fleet) -> None:
    web, doomed, _ = fleet.web(), fleet.worker(), fleet.worker()
    load = Load(web.url, "/do/keeps_a_diary", {"seconds": 0.05}, clients=2)
    until(lambda: len(load.accepted) > 30, 20)
    doomed.kill()
    killed_at = time.monotonic()
    accepted = load.stop()
    assert set(load.statuses) == {202}
    fleet.all_succeed(accepted, 60)
    lost = {run.pid for run in runs(fleet.diary) if run.ended is None}
    never_at_the_same_time(fleet.diary, dict.fromkeys(lost, killed_at))


@NO_SERVER
def test_the_worker_outlives_a_poisonous_task(
    fleet: Fleet,
) -> None:
    web, worker = fleet.web(), fleet.worker()
    id = str(httpx.post(f"{web.url}/do/takes_its_process_down", json={}).headers["task-id"])
    until(lambda: fleet.rows([id])[id].state == "dead", 40)
    row = fleet.rows([id])[id]
    assert (row.crashes, row.error_kind) == (3, "Poison")
    assert worker.process.poll() is None
    fleet.all_succeed([posted(web.url)], 20)


@NO_SERVER
def test_idle_workers_notice_a_lost_queue(revived: Fleet) -> None:
    fleet = revived
    # Long enough that none is on its way to the broker for the second time when that is killed.
    web = fleet.web(PUBLISH_AGAIN_SECONDS="5")
    accepted = [posted(web.url) for _ in range(20)]  # there is no worker yet
    until(lambda: queued_by_redis(fleet) == len(accepted), 20)
    # An old backlog's: told again as its age trebles, which is in two hours.
    sql(
        fleet.database_url,
        f"UPDATE tasks SET run_at = run_at - {HOUR}, publish_at = run_at + {2 * HOUR}",
    )
    fleet.broker.kill()
    fleet.broker.start()
    fleet.worker()
    fleet.all_succeed(accepted, 30)
    fleet.each_ran_once(accepted)
    web.wait_for_log(
        f"the broker at {fleet.broker.address} has no message of 20 waiting tasks; telling it again"
    )


@NO_SERVER
def test_queued_garbage_ends_no_worker(fleet: Fleet) -> None:
    def push(message: str) -> None:
        subprocess.run(
            ["redis-cli", "-p", str(fleet.broker.port), "LPUSH", fleet.variables["QUEUE"], message],
            check=True,
        )

    web, worker = fleet.web(), fleet.worker()
    fleet.all_succeed([posted(web.url)], 20)
    envelope = {
        "delivery_tag": "0",
        "delivery_info": {"exchange": "", "routing_key": ""},
        "body_encoding": "base64",
    }
    headers = {
        "task": "keeps_a_diary",
        "id": "task-0",
        "lang": "py",
        "argsrepr": "",
        "kwargsrepr": "",
    }
    every: list[dict[str, object]] = [
        {"timelimit": ["a", "b"]},
        {"eta": 5},
        {"expires": {}},
        {"id": ["no", "text"]},
        {"task": []},
        {},
    ]
    for bad in every:
        properties = envelope | {"correlation_id": "0"}
        content = {
            "body": "W1tdLHt9LHt9XQ==",
            "content-encoding": "utf-8",
            "content-type": "application/json",
        }
        push(json.dumps(content | {"headers": headers | bad, "properties": properties}))
    for text in ("no JSON", "[]", "{}", "null", '{"properties": 5}'):
        push(text)
    fleet.all_succeed([posted(web.url) for _ in range(5)], 30)
    worker.wait_for_log("dropped a message that is no task")
    assert worker.process.poll() is None
    assert worker.stop() < 20


def test_an_absent_broker_loses_nothing(revived: Fleet) -> None:
    """For 5 s: no longer one shows more, once each side has tried again a few times."""
    fleet = revived
    web, _ = fleet.web(), fleet.worker()
    accepted = [posted(web.url, 0.02) for _ in range(20)]
    fleet.broker.kill()
    back_at = time.monotonic() + 5
    while time.monotonic() < back_at:
        accepted.append(posted(web.url, 0.02))  # requests do not notice
        time.sleep(0.05)  # what the workers can catch up with
    web.wait_for_log(f"the broker at {fleet.broker.address} is unavailable, trying again")
    assert httpx.get(f"{web.url}/health").json()["worker"]["broker"]["status"] == "down"
    fleet.broker.start()
    web.wait_for_log(f"the broker at {fleet.broker.address} is back", 30)
    accepted += [posted(web.url, 0.02) for _ in range(20)]
    fleet.all_succeed(accepted, 40)
    never_at_the_same_time(fleet.diary, {})
    assert web.log().count("is unavailable, trying again") == 1
    assert "Traceback" not in web.log()
    assert "guest" not in web.log()


def test_web_processes_start_without_their_broker(
    revived: Fleet,
) -> None:
    fleet = revived
    fleet.broker.kill()
    web = fleet.web()
    accepted = [posted(web.url) for _ in range(5)]
    web.wait_for_log(f"the broker at {fleet.broker.address} is unavailable, trying again")
    fleet.broker.start()
    fleet.worker()
    fleet.all_succeed(accepted, 40)
    fleet.each_ran_once(accepted)


def test_hanging_brokers_delay_answers_nor_shutdown(fleet: Fleet) -> None:
    web = fleet.web()
    first = posted(web.url)  # over a connection that is about to fall silent
    fleet.broker.signal(signal.SIGSTOP)
    try:
        accepted = [first, *(posted(web.url) for _ in range(20))]
        assert httpx.get(f"{web.url}/health").status_code == 200
        assert web.stop() < 15
    finally:
        fleet.broker.signal(signal.SIGCONT)
    fleet.web()
    fleet.worker()
    fleet.all_succeed(accepted, 40)
    fleet.each_ran_once(accepted)


def test_a_kill_before_publishing_loses_nothing(fleet: Fleet) -> None:
    doomed = fleet.web(DIE_ONCE="before publishing", DIED=f"{fleet.diary}-died")
    fleet.worker()
    id = posted(doomed.url)
    doomed.process.wait(10)
    assert fleet.rows([id])[id].state == "queued"
    fleet.web()
    fleet.all_succeed([id], 20)
    fleet.each_ran_once([id])


def test_messages_delivered_twice_run_once(fleet: Fleet) -> None:
    web, worker = fleet.web(PUBLISH_AGAIN_SECONDS="60"), fleet.worker(LOG_LEVEL="DEBUG")
    id = posted(web.url, 1)
    running(fleet, id)
    fleet.send("keeps_a_diary", id)
    worker.wait_for_log(f"{id} is here already|{id} is running: somebody else has it")
    fleet.all_succeed([id], 10)
    fleet.send("keeps_a_diary", id)
    worker.wait_for_log(f"keeps_a_diary {id} is succeeded: somebody else has it")
    fleet.each_ran_once([id])


def test_old_workers_leave_new_tasks_alone(
    fleet: Fleet,
) -> None:
    web, older = fleet.web(), fleet.worker(FORGOTTEN="keeps_a_diary")
    id = posted(web.url)
    older.wait_for_log("Received unregistered task of type 'keeps_a_diary'")
    assert fleet.rows([id])[id].state == "queued"
    fleet.all_succeed([posted(web.url, name="keeps_a_diary_in_a_thread")], 20)
    fleet.worker()
    fleet.all_succeed([id], 40)
    assert [len(mine) for mine in by_task(runs(fleet.diary)).values()] == [1, 1]


def test_unsetting_the_variable_moves_the_queue(
    fleet: Fleet,
) -> None:
    handing = fleet.web()
    accepted = [posted(handing.url) for _ in range(20)]  # there is no worker
    handing.stop()
    alone = fleet.alone()
    fleet.all_succeed(accepted, 20)
    alone.stop()
    slow = fleet.alone(MAX_RUNNING="1")
    later = [posted(slow.url, 0.5) for _ in range(10)]
    slow.stop()
    assert "queued" in {row.state for row in fleet.rows(later).values()}
    fleet.web()
    fleet.worker()  # it finds messages of what has long succeeded, too
    fleet.all_succeed(later, 40)
    fleet.each_ran_once([*accepted, *later])


def test_both_web_kinds_coexist_amid_deploys(fleet: Fleet) -> None:
    webs = [fleet.web(), fleet.alone()]
    fleet.worker()
    loads = [Load(web.url, "/do/keeps_a_diary", {"seconds": 0.01}, clients=2) for web in webs]
    until(lambda: all(len(load.accepted) > 50 for load in loads), 20)
    accepted = [id for load in loads for id in load.stop()]
    fleet.all_succeed(accepted, 40)
    fleet.each_ran_once(accepted)


@NO_SERVER
def test_stopped_web_processes_leave_no_wait(fleet: Fleet, tmp_path: Path) -> None:
    web = fleet.web()
    accepted = [posted(web.url) for _ in range(5)]
    assert web.stop() < 10
    fleet.alone()
    fleet.all_succeed(accepted, 20)
    fleet.each_ran_once(accepted)
