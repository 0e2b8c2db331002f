"""SIGTERM at a worker: what ends in time ends there, the rest is given back at once."""

import os
import signal
import time

import httpx
import pytest

from tests.diary import by_task, runs
from tests.fleet import NO_SERVER, Fleet, posted, running
from tests.serving import sql, until

# The fixture `fleet` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")

# seconds of silence before a rescue: longer than the test, so that none can be what gave back
PATIENT = "60"


def test_next_workers_run_leftovers_at_once(fleet: Fleet) -> None:
    web = fleet.web(DEAD_SECONDS=PATIENT, PUBLISH_AGAIN_SECONDS=PATIENT)
    first = fleet.worker(DEAD_SECONDS=PATIENT, DRAIN_SECONDS="1")
    ids = [posted(web.url, 4, name) for name in ("keeps_a_diary", "keeps_a_diary_in_a_thread")]
    for id in ids:
        running(fleet, id)
    assert first.stop() < 15
    assert {(row.state, row.attempt, row.crashes) for row in fleet.rows(ids).values()} == {
        ("queued", 0, 0)
    }
    assert len(sql(fleet.database_url, "SELECT id FROM workers")) == 1  # the web process's
    stopped_at = time.monotonic()
    fleet.worker(DEAD_SECONDS=PATIENT)
    for id in ids:
        running(fleet, id)
    fleet.all_succeed(ids, 30)
    for mine in by_task(runs(fleet.diary)).values():
        cut_off, whole = mine
        assert cut_off.ended is None
        assert whole.began > stopped_at
    assert {(row.attempt, row.crashes) for row in fleet.rows(ids).values()} == {(1, 0)}


@NO_SERVER
def test_many_deploys_poison_no_long_task(fleet: Fleet) -> None:
    web = fleet.web(DEAD_SECONDS=PATIENT, PUBLISH_AGAIN_SECONDS=PATIENT)
    id = posted(web.url, 3)
    for number in range(3):
        worker = fleet.worker(DEAD_SECONDS=PATIENT, DRAIN_SECONDS="0.2")
        worker.wait_for_log("keeps_a_diary started")
        worker.stop()
        row = fleet.rows([id])[id]
        assert (row.state, row.attempt, row.crashes) == ("queued", 0, 0), number
    fleet.worker(DEAD_SECONDS=PATIENT)
    fleet.all_succeed([id], 30)


@NO_SERVER
def test_finished_within_shutdown_runs_once(fleet: Fleet) -> None:
    web, first = fleet.web(PUBLISH_AGAIN_SECONDS=PATIENT), fleet.worker(DRAIN_SECONDS="60")
    id = posted(web.url, 1)
    running(fleet, id)
    assert first.stop() < 40  # it ends with what runs, long before its time is up
    assert fleet.rows([id])[id].state == "succeeded"
    fleet.worker()
    fleet.all_succeed([posted(web.url)], 20)
    assert len(by_task(runs(fleet.diary))[id]) == 1


@NO_SERVER
def test_sigterm_to_every_process_changes_nothing(fleet: Fleet) -> None:
    web, first = fleet.web(PUBLISH_AGAIN_SECONDS=PATIENT), fleet.worker(DRAIN_SECONDS="3")
    id = posted(web.url, 1)
    running(fleet, id)
    os.killpg(first.pid, signal.SIGTERM)
    first.process.wait(20)
    row = fleet.rows([id])[id]
    assert (row.state, row.attempt, row.crashes) == ("succeeded", 1, 0)
    until(lambda: httpx.get(f"{web.url}/health").json()["worker"]["queued"] == 0, 10)


@NO_SERVER
@pytest.mark.parametrize("pool", ["threads", "solo"])
def test_pools_without_processes_say_goodbye(fleet: Fleet, pool: str) -> None:
    web = fleet.web(DEAD_SECONDS=PATIENT)
    first = fleet.worker(1, args=["--pool", pool], DEAD_SECONDS=PATIENT)
    ids = [posted(web.url, 0) for _ in range(3)]
    fleet.all_succeed(ids, 20)
    assert first.stop() < 15
    assert len(sql(fleet.database_url, "SELECT id FROM workers")) == 1  # the web process's


@NO_SERVER
@pytest.mark.parametrize(("pool", "at_a_time"), [("threads", 20), ("solo", 1)])
def test_pools_without_processes_give_back_leftovers(
    fleet: Fleet, pool: str, at_a_time: int
) -> None:
    web = fleet.web(DEAD_SECONDS=PATIENT, PUBLISH_AGAIN_SECONDS=PATIENT)
    first = fleet.worker(at_a_time, args=["--pool", pool], DEAD_SECONDS=PATIENT, DRAIN_SECONDS="1")
    long = [posted(web.url, 30) for _ in range(at_a_time)]
    for id in long:
        running(fleet, id)  # all at the same time
    assert first.stop() < 15
    assert {(row.state, row.attempt, row.crashes) for row in fleet.rows(long).values()} == {
        ("queued", 0, 0)
    }
    assert len(sql(fleet.database_url, "SELECT id FROM workers")) == 1
