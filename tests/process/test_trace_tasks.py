"""The segments of tasks that fail, hang, run in threads or are cut off, as received."""

import base64
import re
import socket
import time
from collections.abc import Callable, Iterator

import httpx
import pytest

from tests.collector import Collector, error_of, root, seconds, tags
from tests.serving import Server

Serve = Callable[..., Server]
PIECES = "tests.process.trace_app:app"


@pytest.fixture
def traced(serve: Serve, collector: Collector) -> Serve:
    def start(**options: object) -> Server:
        return serve(**{"SW_AGENT_COLLECTOR_BACKEND_SERVICES": collector.address, **options})

    return start


@pytest.fixture
def silent() -> Iterator[str]:
    """The URL of a server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/"


def test_a_red_task_shows_its_failure(traced: Serve, collector: Collector) -> None:
    before = time.time()
    httpx.get(f"{traced(app=PIECES).url}/fails")
    task = root(collector.segment("fails"))
    assert task.isError
    assert tags(task)["task.outcome"] == "failed"
    told = error_of(task)
    assert (told["event"], told["error.kind"]) == ("error", "ValueError")
    assert told["message"].startswith("as asked")
    assert "raise ValueError(SECRETS)" in told["stack"]
    assert "in _deeper" in told["stack"]
    assert len(told["stack"]) <= 16_000
    assert before <= task.logs[0].time / 1000 <= time.time()
    assert not root(collector.segment("GET:/fails")).isError


def test_errors_show_neither_password_nor_path(traced: Serve, collector: Collector) -> None:
    httpx.get(f"{traced(app=PIECES).url}/fails")
    told = error_of(root(collector.segment("fails")))
    assert told["message"] == "as asked of postgres://db/name and https://hooks.example/"
    collector.log("fails failed after")
    assert "hooks.example/" in collector.everything()
    assert not re.search("pa@ss|word@|secret-path|secret=1", collector.everything())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("fails_without_words", "(its text cannot be had)"),
        ("fails_with_a_lone_surrogate", "?" + "x" * 999),
    ],
)
def test_errors_without_words_are_reported(
    traced: Serve, collector: Collector, name: str, message: str
) -> None:
    server = traced(app=PIECES)
    httpx.get(f"{server.url}/{name}")
    task = root(collector.segment(name))
    assert task.isError
    assert error_of(task)["message"] == message
    assert "tracing failed" not in server.log()


def test_a_timeout_shows_where_it_struck(traced: Serve, collector: Collector) -> None:
    httpx.get(f"{traced(app=PIECES, REQUEST_TIMEOUT='0.3').url}/hangs")
    task = root(collector.segment("hangs"))
    assert 0.3 <= seconds(task) < 2
    assert task.isError
    assert tags(task)["task.outcome"] == "timed_out"
    assert error_of(task)["error.kind"] == "TimeoutError"
    assert "await asyncio.Event().wait()" in error_of(task)["stack"]
    assert not root(collector.segment("GET:/hangs")).isError


def test_threaded_plain_functions_are_traced_alike(traced: Serve, collector: Collector) -> None:
    httpx.get(f"{traced(app=PIECES).url}/sleeps_in_a_thread")
    entry, task = (
        collector.segment("GET:/sleeps_in_a_thread"),
        collector.segment("sleeps_in_a_thread"),
    )
    assert seconds(root(task)) >= 0.2
    assert task.traceId == entry.traceId
    assert root(task).refs[0].parentTraceSegmentId == entry.traceSegmentId
    assert tags(root(task))["task.outcome"] == "succeeded"
    assert not root(task).isError


@pytest.mark.parametrize("name", ["calls", "calls_in_a_thread"])
def test_tasks_calls_hang_below_their_span(
    traced: Serve, collector: Collector, webhook: str, name: str
) -> None:
    httpx.get(
        f"{traced(app=PIECES).url}/{name}",
        params={"url": f"http://user:pa55@{webhook}/secret-path?secret=1"},
    )
    task = collector.segment(name)
    exit_span, local = task.spans
    assert (exit_span.parentSpanId, exit_span.spanType) == (local.spanId, 1)
    assert (exit_span.operationName, exit_span.peer) == (f"GET:{webhook}", webhook)
    assert tags(exit_span)["http.url"] == f"http://{webhook}/"
    assert {root(segment).operationName for segment in collector.segments} == {name, f"GET:/{name}"}
    assert not re.search("pa55|secret", collector.everything())


def test_calls_outliving_tasks_stay_traced(
    traced: Serve, collector: Collector, webhook: str
) -> None:
    server = traced(app=PIECES)
    httpx.get(f"{server.url}/leaves_a_call_behind", params={"url": f"http://{webhook}/"})
    late = collector.segment(f"GET:{webhook}")
    assert late.traceId == collector.segment("leaves_a_call_behind").traceId
    assert tags(root(late))["http.status_code"] == "204"
    assert "Traceback" not in server.log()


def test_hanging_threads_delay_no_segment(traced: Serve, collector: Collector, silent: str) -> None:
    url = traced(app=PIECES, REQUEST_TIMEOUT="0.3").url
    httpx.get(f"{url}/hangs_in_a_thread", params={"url": silent})
    task = root(collector.segment("hangs_in_a_thread"))
    assert tags(task)["task.outcome"] == "timed_out"
    assert seconds(task) < 2


def test_ordered_tasks_are_sibling_segments(traced: Serve, collector: Collector) -> None:
    httpx.get(f"{traced(app=PIECES).url}/first_then_second")
    entry = collector.segment("GET:/first_then_second")
    first, second = collector.segment("fails"), collector.segment("sleeps_in_a_thread")
    assert root(first).endTime <= root(second).startTime
    assert {root(each).refs[0].parentTraceSegmentId for each in (first, second)} == {
        entry.traceSegmentId
    }
    assert len(first.spans) == len(second.spans) == 1


def test_carriers_survive_processes_and_tolerate_damage(
    traced: Serve, collector: Collector
) -> None:
    def encoded(text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    named = [encoded(text) for text in ("ours", "a worker that died", "POST:/action", "")]
    good = "-".join(["1", encoded("trace.1"), encoded("segment.1"), "0", *named])
    server = traced(app=PIECES)
    assert httpx.post(f"{server.url}/resumes", json=[good, "0", "", good[5:], "😀"]).text == "ok"
    task = collector.segment("stored-0")
    (ref,) = root(task).refs
    assert (task.traceId, ref.refType, ref.parentEndpoint) == ("trace.1", 0, "POST:/action")
    assert (ref.parentTraceSegmentId, ref.parentServiceInstance) == (
        "segment.1",
        "a worker that died",
    )
    for number in (2, 3, 4):
        alone = collector.segment(f"stored-{number}")
        assert not root(alone).refs
        assert not root(alone).isError
    assert not collector.named("stored-1")
    assert "tracing failed" not in server.log()


@pytest.mark.parametrize("name", ["enqueues", "enqueues_in_a_thread"])
def test_subtasks_hang_below_their_tasks_span(
    traced: Serve, collector: Collector, name: str
) -> None:
    httpx.get(f"{traced(app=PIECES).url}/{name}")
    request, first = collector.segment(f"GET:/{name}"), collector.segment(name)
    second = collector.segment("stored")
    assert request.traceId == first.traceId == second.traceId
    (ref,) = root(second).refs
    assert (ref.parentTraceSegmentId, ref.parentEndpoint) == (first.traceSegmentId, name)
    assert (ref.parentSpanId, ref.refType) == (0, 1)


def test_handlers_tasks_hang_below_their_request(traced: Serve, collector: Collector) -> None:
    httpx.get(f"{traced(app=PIECES).url}/enqueues_itself")
    request, task = (
        collector.segment("GET:/enqueues_itself"),
        collector.segment("stored"),
    )
    (ref,) = root(task).refs
    assert (ref.parentTraceSegmentId, ref.parentEndpoint) == (
        request.traceSegmentId,
        "GET:/enqueues_itself",
    )


def test_only_requests_and_tasks_have_carriers(traced: Serve, collector: Collector) -> None:
    assert httpx.get(f"{traced(app=PIECES).url}/outside").json() == ["", ""]


@pytest.mark.parametrize("name", ["enqueues", "enqueues_itself"])
def test_what_the_untraced_enqueue_is_untraced(
    traced: Serve, collector: Collector, name: str
) -> None:
    server = traced(app=PIECES, SW_AGENT_TRACE_IGNORE_PATH=f"/{name}")
    httpx.get(f"{server.url}/{name}")
    server.wait_for_log("stored succeeded")
    server.stop()
    assert not collector.segments


def test_the_lifespans_calls_are_no_orphans(
    traced: Serve, collector: Collector, webhook: str
) -> None:
    url = traced(app=PIECES, DISCORD_WEBHOOK_URL=f"http://{webhook}/").url
    httpx.get(f"{url}/items/1")
    collector.segment("GET:/items/{id}")
    assert len(collector.segments) == 1


def test_untraced_requests_tasks_call_untraced(
    traced: Serve, collector: Collector, webhook: str
) -> None:
    server = traced(app=PIECES, SW_AGENT_TRACE_IGNORE_PATH="/calls")
    httpx.get(f"{server.url}/calls", params={"url": f"http://{webhook}/"})
    server.stop()
    assert "calls succeeded" in server.log()
    assert not collector.segments


def test_only_a_webhooks_host_is_seen(traced: Serve, collector: Collector, webhook: str) -> None:
    url = f"http://{webhook}/api/webhooks/123456/secret-token"
    server = traced(DISCORD_WEBHOOK_URL=url, SW_AGENT_LOG_REPORTER_LEVEL="DEBUG", LOG_LEVEL="DEBUG")
    user = {"email": "a@example.com", "username": "ann"}
    assert httpx.post(f"{server.url}/users/with-notifications/", json=user).status_code == 201
    posted = next(
        span for span in collector.segment("announce_on_discord").spans if span.spanType == 1
    )
    assert (posted.operationName, tags(posted)["http.status_code"]) == (f"POST:{webhook}", "204")
    collector.log("announce_on_discord succeeded")
    server.stop()
    assert "/api/webhooks" not in collector.everything()
    assert "secret-token" not in collector.everything()


def test_log_lines_carry_trace_and_task(traced: Serve, collector: Collector) -> None:
    server = traced(SW_AGENT_LOG_REPORTER_LEVEL="INFO")
    task_id = httpx.post(f"{server.url}/action").headers["task-id"]
    task = collector.segment("log_action")
    line = collector.log("action: action")
    assert line.traceContext.traceId == task.traceId
    assert line.traceContext.traceSegmentId == task.traceSegmentId
    assert line.endpoint == "log_action"
    assert tags(line)["task.id"] == task_id
    assert line.body.text.text.endswith(f"action: action task={task_id}")
    server.wait_for_log(f"action: action  task={task_id}  trace={task.traceId}")
    outside = collector.log("Application startup complete")
    assert not outside.traceContext.traceId
    assert "task" not in tags(outside) | {"text": outside.body.text.text}


def test_failure_lines_keep_the_failing_frame(traced: Serve, collector: Collector) -> None:
    httpx.get(f"{traced(app=PIECES).url}/fails")
    task_id = tags(root(collector.segment("fails")))["task.id"]  # no answer names it: it has no row
    first, *rest = collector.log("fails failed after").body.text.text.splitlines()
    assert first.endswith(f"task={task_id}")
    assert any("raise ValueError" in line for line in rest)


def test_a_users_own_layout_is_kept(traced: Serve, collector: Collector) -> None:
    layout = "%(message)s|%(task_id)s|%(trace_id)s"
    url = traced(SW_AGENT_LOG_REPORTER_LEVEL="INFO", SW_AGENT_LOG_REPORTER_LAYOUT=layout).url
    task_id = httpx.post(f"{url}/action").headers["task-id"]
    task = collector.segment("log_action")
    assert (
        collector.log("action: action").body.text.text == f"action: action|{task_id}|{task.traceId}"
    )


def test_shutdowns_deliver_cut_and_finished_tasks(traced: Serve, collector: Collector) -> None:
    server = traced(app=PIECES, DRAIN_SECONDS="0.5")
    httpx.get(f"{server.url}/hangs")
    httpx.get(f"{server.url}/sleeps_in_a_thread")
    assert server.stop() < 5
    assert tags(root(collector.segment("hangs")))["task.outcome"] == "released"
    assert not root(collector.segment("hangs")).isError
    assert tags(root(collector.segment("sleeps_in_a_thread")))["task.outcome"] == "succeeded"
