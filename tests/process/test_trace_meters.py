"""The queue's meters, as a real collector received them of a real server."""

from collections.abc import Callable

import httpx
import pytest

from afterwards.skywalking.meters import GAUGES, RUN, RUNNING, SETTLED, STEPS, WAIT
from tests.collector import Collector, name_of, value_of
from tests.serving import Server, sql, until

# The fixture `database_url` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")

Serve = Callable[..., Server]
NAMES = {*GAUGES.values(), RUNNING, SETTLED, WAIT, RUN}


@pytest.fixture
def metered(serve: Serve, collector: Collector, database_url: str) -> Serve:
    def start(**options: object) -> Server:
        traces = {"SW_AGENT_COLLECTOR_BACKEND_SERVICES": collector.address, "SW_AGENT_NAME": "ours"}
        often = {"SW_AGENT_METER_REPORTER_PERIOD": "1", "DATABASE_URL": database_url}
        return serve(**{**traces, **often, **options})

    return start


def test_what_has_run_is_counted(metered: Serve, collector: Collector) -> None:
    url = metered(SLEEP_SECONDS="0.3").url
    for _ in range(3):
        httpx.get(f"{url}/test")
    assert collector.meter(SETTLED, lambda settled: bool(settled == 3))
    ran = collector.meter(RUN, lambda counts: sum(counts.values()) == 3)
    assert min(ran) >= 250  # that is the bound below
    assert {*ran} <= {*STEPS}
    assert collector.meter(WAIT, lambda counts: sum(counts.values()) == 3)
    ours = [each for each in collector.meters if name_of(each) in NAMES]
    assert {each.service for each in ours} == {"ours"}
    assert {each.serviceInstance for each in ours} == collector.instances
    assert {name_of(each) for each in ours} == NAMES


def test_a_busy_process_tells_what_runs(metered: Serve, collector: Collector) -> None:
    url = metered(SLEEP_SECONDS="60", DRAIN_SECONDS="0.1").url
    for _ in range(2):
        httpx.get(f"{url}/test")
    assert collector.meter(RUNNING, lambda running: bool(running == 2))
    assert not any(value_of(each) for each in collector.meters if name_of(each) == SETTLED)


def test_a_backlog_and_its_age_are_told(metered: Serve, collector: Collector) -> None:
    url = metered(RUN_TASKS="0").url
    for _ in range(4):
        httpx.post(f"{url}/action")
    assert collector.meter(GAUGES["queued"], lambda queued: bool(queued == 4))
    assert collector.meter(GAUGES["oldest_waiting"], lambda age: bool(age > 1000))
    assert collector.meter(GAUGES["dead"], lambda dead: bool(dead == 0)) == 0


def test_the_dead_are_told(metered: Serve, collector: Collector, database_url: str) -> None:
    url = metered().url
    id = httpx.post(f"{url}/action").headers["task-id"]
    until(lambda: httpx.get(f"{url}/tasks/{id}").json()["state"] == "succeeded", 20)
    sql(database_url, "UPDATE tasks SET state = 'dead'")
    assert collector.meter(GAUGES["dead"], lambda dead: bool(dead == 1))


def test_meters_can_be_turned_off(metered: Serve, collector: Collector) -> None:
    url = metered(SW_AGENT_METER_REPORTER_ACTIVE="false").url
    httpx.post(f"{url}/action")
    collector.segment("log_action")
    assert not collector.meters
