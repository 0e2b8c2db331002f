"""What a SkyWalking user sees of endpoints, peers, instances, crashes and log lines."""

import re
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from afterwards.skywalking.meters import SETTLED
from tests.bad_days import BAD_DAYS
from tests.collector import Collector, error_of, name_of, root, tags, value_of
from tests.serving import Server, sql, until

Serve = Callable[..., Server]
PIECES = "tests.process.trace_app:app"
CONTROLS = re.compile("[\x00-\x09\x0b-\x1f\x7f-\x9f]")
EXIT = 1


@pytest.fixture
def traced(serve: Serve, collector: Collector) -> Serve:
    traces = {
        "SW_AGENT_COLLECTOR_BACKEND_SERVICES": collector.address,
        "SW_AGENT_NAME": "ours",
        "SW_AGENT_LOG_REPORTER_LEVEL": "INFO",
    }

    def start(**options: Any) -> Server:
        return serve(**{**traces, "SLEEP_SECONDS": "0.1", **options})

    return start


def texts(collector: Collector) -> Iterator[str]:
    """Give every text of spans and log lines that a collector would store."""
    for line in collector.logs:
        yield from (line.endpoint, line.body.text.text, *tags(line), *tags(line).values())
    for span in [span for segment in collector.segments for span in segment.spans]:
        yield from (span.operationName, span.peer, *tags(span), *tags(span).values())
        yield from (item.value for log in span.logs for item in log.data)


def belongs(line: Any, segment: Any) -> bool:
    """Return whether the log line is of this trace, and of the task of its first span."""
    of_trace = line.traceContext.traceId == segment.traceId
    return of_trace and tags(line).get("task.id") == tags(root(segment))["task.id"]


# --- endpoints ---


def test_log_lines_make_no_endpoints(traced: Serve, collector: Collector) -> None:
    url = traced(app=PIECES).url
    for path in ("/says/secret-1", "/says/secret-2", "/nowhere/1", "/nowhere/2"):
        httpx.get(url + path)
    assert collector.log("GET /says/secret-2").endpoint == "GET:/says/{word}"
    assert collector.log("GET /nowhere/2").endpoint == "/{unmatched}"
    within = collector.log("said: secret-2")  # when the answer, and so the name, was to come
    assert (within.endpoint, within.traceContext.spanId) == ("", 0)
    assert within.traceContext.traceId == collector.several("GET:/says/{word}", 2)[1].traceId
    endpoints = {line.endpoint for line in collector.logs}
    assert endpoints == {"", "GET:/says/{word}", "/{unmatched}"}


# --- what a database refuses ---


@pytest.mark.parametrize("path", ["says/before%00after%1b%5b2J", "fails_with_a_nul"])
def test_control_characters_leave_spelled_out(
    traced: Serve, collector: Collector, path: str
) -> None:
    httpx.get(f"{traced(app=PIECES).url}/{path}")
    collector.wait_for(lambda: [each for each in texts(collector) if "before" in each])
    if path == "fails_with_a_nul":
        failed = root(collector.segment(path))
        assert error_of(failed)["message"] == r"before\x00after\x1b[2J"
        collector.log("is dead after")
    else:
        assert r"said: before\x00after\x1b[2J" in collector.log("said").body.text.text
    assert not [each for each in texts(collector) if CONTROLS.search(each)]


# --- peers ---


def test_calls_for_pictures_are_traced(traced: Serve, collector: Collector, webhook: str) -> None:
    url = traced(app=PIECES).url
    httpx.get(f"{url}/calls", params={"url": f"http://{webhook}/picture.png"})
    [called] = [span for span in collector.segment("calls").spans if span.spanType == EXIT]
    assert (called.operationName, called.peer) == (f"GET:{webhook}", webhook)


def test_requests_for_pictures_stay_untraced(traced: Serve, collector: Collector) -> None:
    server = traced(app=PIECES)
    httpx.get(f"{server.url}/items/picture.png")
    httpx.get(f"{server.url}/items/1")
    server.stop()
    assert len(collector.named("GET:/items/{id}")) == 1


def test_strangers_hosts_share_one_peer(
    traced: Serve, collector: Collector, webhook: str, heard: list[dict[str, str]]
) -> None:
    url = traced(ALLOW_PRIVATE_ADDRESSES="1").url
    order = {"image_url": f"http://{webhook}/picture.png", "operations": ["resize"]}
    assert httpx.post(f"{url}/process-image/", json=order).status_code == 202
    [called] = [span for span in collector.segment("process_image").spans if span.spanType == EXIT]
    assert (called.operationName, called.peer) == ("GET:pictures", "pictures")
    assert tags(called)["http.url"] == f"http://{webhook}/"
    assert [sorted(headers.keys() & {"sw8", "sw8-correlation"}) for headers in heard] == [[]]


def test_ones_own_calls_carry_the_trace(
    traced: Serve, collector: Collector, webhook: str, heard: list[dict[str, str]]
) -> None:
    httpx.get(f"{traced(app=PIECES).url}/calls", params={"url": f"http://{webhook}/"})
    collector.segment("calls")
    assert heard[0]["sw8"].startswith("1-")


# c is "caller" and its instance, the endpoint and the address it called.
SW8 = "1-dHJhY2UuMQ==-c2VnbWVudC4x-3-Y2FsbGVy-Y2FsbGVyLTE=-L2NhbGxlcg==-MTAuMC4wLjE6ODA="


@pytest.mark.parametrize(
    ("trusted", "is_continued"),
    [("", True), ("127.0.0.0/8", True), ("10.0.0.0/8, ::1", False), ("none", False)],
)
def test_only_trusted_networks_traces_continue(
    traced: Serve, collector: Collector, trusted: str, is_continued: bool
) -> None:
    httpx.get(f"{traced(app=PIECES, SW8_TRUSTED=trusted).url}/items/1", headers={"sw8": SW8})
    entry = collector.segment("GET:/items/{id}")
    assert (entry.traceId == "trace.1") == is_continued
    assert bool(root(entry).refs) == is_continued


# --- instances ---


@pytest.mark.parametrize(
    ("variables", "name"),
    [
        ({}, rf"{re.escape(socket.gethostname())}-PID-\d{{8}}-\d{{6}}"),
        ({"DYNO": "web.7"}, r"web\.7-PID-\d{8}-\d{6}"),
        ({"SW_AGENT_INSTANCE_NAME": "mine", "DYNO": "web.7"}, "mine-PID"),
    ],
    ids=["a host", "a dyno", "a name of one's own"],
)
def test_an_instances_name_can_be_read(
    traced: Serve, collector: Collector, variables: dict[str, str], name: str
) -> None:
    server = traced(**variables)
    [told] = collector.wait_for(lambda: collector.instances)
    assert re.fullmatch(name.replace("PID", str(server.pid)), told)


def test_a_worker_keeps_the_services_name(
    traced: Serve, collector: Collector, tmp_path: Path
) -> None:
    at = {"DATABASE_URL": f"sqlite:///{tmp_path}/shared.db", "RUN_TASKS": "0"}
    often = {"SW_AGENT_METER_REPORTER_PERIOD": "1"}
    web = traced(**at)
    id = httpx.post(f"{web.url}/action").headers["task-id"]
    words = ["python", "-m", "afterwards", "worker", "asgi_app:afterwards"]
    worker = traced(command=words, app="", **at, **often)
    request, ran = collector.segment("POST:/action"), collector.segment("log_action")
    assert (ran.traceId, tags(root(ran))["task.id"]) == (request.traceId, id)
    assert (request.service, ran.service) == ("ours", "ours")
    assert f"-{worker.pid}-" in ran.serviceInstance != request.serviceInstance
    assert collector.meter(SETTLED, lambda settled: bool(settled == 1))
    of_worker = [each for each in collector.meters if name_of(each) == SETTLED and value_of(each)]
    assert {each.serviceInstance for each in of_worker} == {ran.serviceInstance}


# --- lines about a task that no attempt runs ---


def test_what_becomes_of_failures_is_traced(traced: Serve, collector: Collector) -> None:
    server = traced(app=PIECES)
    httpx.get(f"{server.url}/fails_twice")
    first, second = sorted(
        collector.several("fails_twice", 2), key=lambda each: tags(root(each))["task.attempt"]
    )
    for text, segment in (("fails_twice will be", first), ("fails_twice is dead after 2", second)):
        line = collector.log(text)
        assert belongs(line, segment)
        assert line.traceContext.traceSegmentId == segment.traceSegmentId
        assert (line.endpoint, line.traceContext.spanId) == ("fails_twice", 0)
        ids = f"task={tags(root(segment))['task.id']}  trace={segment.traceId}"
        server.wait_for_log(f"{text}.*{ids}")


def test_what_is_cut_off_is_traced(traced: Serve, collector: Collector) -> None:
    server = traced(app=PIECES, DRAIN_SECONDS="0.5")
    httpx.get(f"{server.url}/hangs")
    server.wait_for_log("hangs started")
    server.stop()
    assert belongs(collector.log("the shutdown cuts off hangs"), collector.segment("hangs"))
    draining = collector.log("draining: 1 tasks")  # which is of no task
    assert not draining.traceContext.traceId
    assert "task.id" not in tags(draining)


def test_a_crash_is_seen_in_the_trace(traced: Serve, collector: Collector, tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/crash.db"
    day = {"app": BAD_DAYS, "DATABASE_URL": url, "DEAD_SECONDS": "1"}
    day |= {"DIARY": f"{tmp_path}/diary"}
    first = traced(**day)
    id = httpx.post(f"{first.url}/do/keeps_a_diary", json={"seconds": 2}).headers["task-id"]
    request = collector.segment("POST:/do/{name}")
    first.wait_for_log("keeps_a_diary started")
    first.kill()
    second = traced(**day)
    run = collector.segment("keeps_a_diary")
    told = tags(root(run))
    assert (told["task.id"], told["task.attempt"], told["task.crashes"]) == (id, "1", "1")
    assert int(told["task.wait_ms"]) > 1000  # since it was due, not since it was rescued
    event = error_of(root(run))
    assert event["event"] == "rescued"
    assert re.fullmatch(rf"rescued from \S+-{first.pid}-[0-9a-f]{{8}}", event["message"])
    assert run.traceId == request.traceId
    assert not root(run).isError
    line = collector.log("was rescued from a dead worker")
    assert belongs(line, run)
    second.wait_for_log(f"was rescued from a dead worker.*task={id}  trace={run.traceId}")


def test_only_the_run_after_a_crash_tells(
    traced: Serve, collector: Collector, tmp_path: Path
) -> None:
    url = f"sqlite:///{tmp_path}/crash.db"
    server = traced(app=BAD_DAYS, DATABASE_URL=url, DIARY=f"{tmp_path}/diary")
    id = httpx.post(f"{server.url}/do/raises_until_the_third", json={}).headers["task-id"]
    until(lambda: [row.state for row in sql(url, "SELECT * FROM tasks")] == ["succeeded"], 20)
    runs = collector.several("raises_until_the_third", 3)
    assert {tags(root(run))["task.id"] for run in runs} == {id}
    assert not [run for run in runs if "task.crashes" in tags(root(run))]
    events = [item.value for run in runs for log in root(run).logs for item in log.data]
    assert "rescued" not in events
