"""A request's entry span, as a real collector received it from a real server."""

import base64
import re
import socket
from collections.abc import Callable

import httpx
import pytest

from tests.collector import Collector, error_of, root, seconds, tags
from tests.serving import Server

Serve = Callable[..., Server]
PIECES = "tests.process.trace_app:app"


@pytest.fixture
def traced(serve: Serve, collector: Collector) -> Serve:
    def start(**options: object) -> Server:
        traces = {"SW_AGENT_COLLECTOR_BACKEND_SERVICES": collector.address, "SW_AGENT_NAME": "ours"}
        return serve(**{**traces, "SLEEP_SECONDS": "0.5", "NOTIFY_SECONDS": "0.1", **options})

    return start


def encoded(text: str | bytes) -> str:
    return base64.b64encode(text.encode() if isinstance(text, str) else text).decode()


def sw8(
    trace: str | bytes = "trace.1",
    segment: str = "segment.1",
    span: str = "3",
    end: str = "/caller",
    address: str = "10.0.0.1:80",
) -> str:
    named = [encoded(text) for text in ("caller", "caller-1", end, address)]
    return "-".join(["1", encoded(trace), encoded(segment), span, *named])


def ask(server: Server, *requests: bytes) -> bytes:
    """Send raw requests at once on one connection, and give all the answers."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(b"".join(requests))
        return b"".join(iter(lambda: connection.recv(65536), b""))


def request(path: str, *headers: bytes, method: str = "GET", last: bool = True) -> bytes:
    close = [b"connection: close"] if last else []
    lines = [
        f"{method} {path} HTTP/1.1".encode(),
        b"host: test",
        b"content-length: 0",
        *close,
        *headers,
    ]
    return b"\r\n".join(lines) + b"\r\n\r\n"


def test_requests_end_early_within_one_trace(traced: Serve, collector: Collector) -> None:
    url = traced().url
    answer = httpx.get(f"{url}/test?password=hidden", headers={"user-agent": "x"})
    entry, task = collector.segment("GET:/test"), collector.segment("background_sleep_task")
    assert seconds(root(entry)) < 0.2
    assert seconds(root(task)) >= 0.5
    assert task.traceId == entry.traceId
    (ref,) = root(task).refs
    assert (ref.traceId, ref.parentTraceSegmentId, ref.parentSpanId) == (
        entry.traceId,
        entry.traceSegmentId,
        0,
    )
    assert (ref.parentEndpoint, ref.parentService, ref.refType) == ("GET:/test", "ours", 1)
    assert ref.parentServiceInstance == entry.serviceInstance
    assert (root(entry).spanType, root(entry).spanLayer, root(entry).componentId) == (0, 3, 7000)
    assert re.fullmatch(r"127\.0\.0\.1:\d+", root(entry).peer)
    assert tags(root(entry)) == {
        "http.method": "GET",
        "http.url": f"{url}/test",
        "http.status_code": "200",
    }
    told = tags(root(task))
    assert 0 <= int(told.pop("task.wait_ms")) < 500
    assert told == {
        "task.id": answer.headers["task-id"],
        "task.name": "background_sleep_task",
        "task.attempt": "1",
        "task.outcome": "succeeded",
    }
    assert not root(entry).isError
    assert not root(task).isError
    assert (root(task).spanType, root(task).spanLayer, root(task).peer) == (2, 2, "")
    assert root(task).componentId == 7000
    assert answer.text == "ok"


def test_streams_are_traced_to_their_end(traced: Serve, collector: Collector) -> None:
    assert httpx.get(f"{traced(app=PIECES).url}/streams").text == "piece" * 3
    assert seconds(root(collector.segment("GET:/streams"))) >= 0.2


def test_requests_end_before_their_background(traced: Serve, collector: Collector) -> None:
    assert httpx.get(f"{traced(app=PIECES).url}/lingers").text == "ok"
    assert seconds(root(collector.segment("GET:/lingers"))) < 0.3


def test_three_tasks_are_three_child_segments(traced: Serve, collector: Collector) -> None:
    httpx.post(f"{traced().url}/complex-action")
    entry = collector.segment("POST:/complex-action")
    names = {"log_action", "write_audit_record", "send_notification"}
    for name in names:
        (ref,) = root(collector.segment(name)).refs
        assert ref.parentTraceSegmentId == entry.traceSegmentId
    segments = collector.segments_of(entry.traceId)
    assert {root(segment).operationName for segment in segments} == names | {"POST:/complex-action"}
    assert len({segment.traceSegmentId for segment in segments}) == 4


def test_pipelined_requests_have_separate_traces(traced: Serve, collector: Collector) -> None:
    ask(traced(), *[request("/test", last=False)] * 3, request("/test"))
    entries = collector.several("GET:/test", 4)
    tasks = collector.several("background_sleep_task", 4)
    assert len({entry.traceId for entry in entries}) == 4
    assert not any(root(entry).refs for entry in entries)
    assert all(len(entry.spans) == 1 for entry in entries)
    assert {task.traceId for task in tasks} == {entry.traceId for entry in entries}


def test_clients_leaving_amid_answers_end_spans(traced: Serve, collector: Collector) -> None:
    server = traced(app=PIECES)
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request("/drips"))
        while b"drop" not in connection.recv(65536):
            pass
        assert not collector.named("GET:/drips")
    entry = root(collector.segment("GET:/drips"))
    assert tags(entry)["http.status_code"] == "200"
    assert not entry.isError


def test_only_exceptions_make_spans_errors(traced: Serve, collector: Collector) -> None:
    url = traced(app=PIECES).url
    assert httpx.get(f"{url}/raises").status_code == 500
    broken = root(collector.segment("GET:/raises"))
    assert broken.isError
    assert tags(broken)["http.status_code"] == "500"
    assert error_of(broken)["message"] == "a bug in a route"
    assert 'raise RuntimeError("a bug in a route")' in error_of(broken)["stack"]
    assert httpx.get(f"{url}/items/1").status_code == 200
    fine = root(collector.segment("GET:/items/{id}"))
    assert not fine.isError
    assert not fine.logs


def test_a_route_always_has_one_name(traced: Serve, collector: Collector) -> None:
    server = traced(app=PIECES)
    for path in ("/items/1", "/items/2", "/items/%0aforged"):
        ask(server, request(path))
    ask(server, request("/items/3", method="PUT"))
    ask(server, request("/items/3", method="PROPFIND"))
    collector.wait_for(lambda: len(collector.segments) == 5)
    names = [root(segment).operationName for segment in collector.segments]
    assert sorted(names) == ["GET:/items/{id}"] * 3 + ["OTHER:/items/{id}", "PUT:/items/{id}"]
    assert "http://test/items/%0aforged" in {
        tags(root(segment))["http.url"] for segment in collector.segments
    }


def test_unrouted_paths_share_one_name(traced: Serve, collector: Collector) -> None:
    server = traced()
    for path in ("/nothing", "/nothing/else?a=1", "/images", "/%ff%00"):
        assert b" 404 " in ask(server, request(path))
    ask(server, request("/nothing", method="POST"))
    ask(server, request("/health"))
    collector.wait_for(lambda: len(collector.segments) == 6)
    names = [root(segment).operationName for segment in collector.segments]
    assert sorted(names) == ["/{unmatched}"] * 5 + ["GET:/health"]
    assert not any(root(segment).isError for segment in collector.segments)


def test_requests_answered_early_bear_their_routes(traced: Serve, collector: Collector) -> None:
    url = traced(app="asgi_app:app", RATE_LIMIT="2/hour").url
    keyed = {"idempotency-key": "once"}
    statuses = [httpx.post(f"{url}/action", headers=keyed).status_code for _ in range(3)]
    assert statuses == [202, 202, 429]
    assert httpx.get(f"{url}/tasks/a-secret").status_code == 429
    assert httpx.get(f"{url}/nothing").status_code == 429
    assert len(collector.several("POST:/action", 3)) == 3
    assert len(collector.named("log_action")) == 1
    for name in ("GET:/tasks/{id}", "/{unmatched}"):
        collector.segment(name)


def test_ignored_requests_and_tasks_are_untraced(traced: Serve, collector: Collector) -> None:
    url = traced(
        SW_AGENT_TRACE_IGNORE_PATH="/test,/api/**", SW_PLUGIN_HTTP_IGNORE_METHOD="DELETE"
    ).url
    httpx.get(f"{url}/test")
    httpx.post(f"{url}/api/notifications/notify")
    httpx.get(f"{url}/images/x.png")
    httpx.delete(f"{url}/health")
    httpx.get(f"{url}/health")
    httpx.post(f"{url}/action")
    collector.segment("log_action")
    assert {root(segment).operationName for segment in collector.segments} == {
        "GET:/health",
        "POST:/action",
        "log_action",
    }


def test_a_good_sw8_is_continued(traced: Serve, collector: Collector) -> None:
    headers = {"sw8": sw8(), "sw8-correlation": f"{encoded('key')}:{encoded('value')}"}
    assert httpx.post(f"{traced().url}/action", headers=headers).status_code == 202
    entry, task = collector.segment("POST:/action"), collector.segment("log_action")
    assert entry.traceId == task.traceId == "trace.1"
    (ref,) = root(entry).refs
    assert (ref.refType, ref.parentTraceSegmentId, ref.parentSpanId) == (0, "segment.1", 3)
    assert (ref.parentService, ref.parentServiceInstance, ref.parentEndpoint) == (
        "caller",
        "caller-1",
        "/caller",
    )
    assert ref.networkAddressUsedAtPeer == "10.0.0.1:80"


def line(value: str) -> bytes:
    return b"sw8: " + value.encode("latin-1")


HOSTILE = {
    "empty": [line("")],
    "garbage": [line("garbage")],
    "bytes that are not ASCII": [line("\xff\xfe-\x80")],
    "too few parts": [line("1-YQ==-YQ==-0")],
    "the agent's own sign of an untraced caller": [line("1-------")],
    "bad base64": [line(sw8().replace("-", "-!", 1))],
    "not UTF-8": [line(sw8(trace=b"\xff\xfe"))],
    "a superscript digit as span id": [line(sw8(span="\xb2"))],
    "a span id of 2^31": [line(sw8(span=str(2**31)))],
    "a huge span id": [line(sw8(span="9" * 5000))],
    "a negative span id": [line(sw8(span="-1"))],
    "a newline in the trace id": [line(sw8(trace="a\nforged line"))],
    "a NUL in the trace id": [line(sw8(trace="a\0b"))],
    "a control character in the endpoint": [line(sw8(end="/\x1b[2J"))],
    "an empty segment id": [line(sw8(segment=""))],
    "an oversized trace id": [line(sw8(trace="a" * 129))],
    "an oversized endpoint": [line(sw8(end="/" + "a" * 20_000))],
    "no address, as our own for tasks": [line(sw8(address=""))],
    "two headers": [line(sw8()), line(sw8(trace="trace.2"))],
    "a bad correlation alone": [b"sw8-correlation: \xff:,:::,"],
}


def test_a_hostile_sw8_counts_as_none(traced: Serve, collector: Collector) -> None:
    server = traced()
    for name, headers in HOSTILE.items():
        assert b" 202 " in ask(server, request("/action", *headers, method="POST")), name
    tasks = collector.several("log_action", len(HOSTILE))
    entries = collector.several("POST:/action", len(HOSTILE))
    assert not any(root(entry).refs for entry in entries)
    assert len({entry.traceId for entry in entries}) == len(HOSTILE)
    assert {task.traceId for task in tasks} == {entry.traceId for entry in entries}


def test_bad_correlations_spoil_no_good_sw8(traced: Serve, collector: Collector) -> None:
    ask(traced(), request("/action", line(sw8()), b"sw8-correlation: \xff:,:::,", method="POST"))
    assert collector.segment("POST:/action").traceId == "trace.1"


def test_unsampled_requests_leave_no_orphans(traced: Serve, collector: Collector) -> None:
    # The log reporter's lines must not use up what is sampled.
    server = traced(
        SW_SAMPLE_N_PER_3_SECS="1", SLEEP_SECONDS="0.01", SW_AGENT_LOG_REPORTER_LEVEL="INFO"
    )
    url = server.url
    for _ in range(20):
        httpx.get(f"{url}/test")
    server.stop()
    assert server.log().count("background_sleep_task succeeded") == 20
    entries, tasks = collector.named("GET:/test"), collector.named("background_sleep_task")
    assert 1 <= len(entries) <= 4
    assert sorted(task.traceId for task in tasks) == sorted(entry.traceId for entry in entries)
    assert len(collector.segments) == len(entries) + len(tasks)
