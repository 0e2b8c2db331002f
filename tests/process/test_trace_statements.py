"""What requests and tasks ask of databases, as a real collector received it."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from sqlalchemy.engine import make_url

from tests.collector import Collector, error_of, root, seconds, tags
from tests.serving import Server

# The fixture `database_url` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")

Serve = Callable[..., Server]
STATEMENTS = "tests.process.statements_app:app"
DATABASE_LAYER, EXIT = 1, 1
COMPONENTS = {"SQLite": 31, "PostgreSQL": 22}  # in the OAP's component-libraries.yml


@pytest.fixture
def traced(serve: Serve, collector: Collector, database_url: str) -> Serve:
    def start(**options: object) -> Server:
        traces = {"SW_AGENT_COLLECTOR_BACKEND_SERVICES": collector.address}
        return serve(
            **{"app": STATEMENTS, "DATABASE_URL": database_url, **traces, **options},
        )

    return start


def statements(segment: Any) -> list[Any]:
    return [span for span in segment.spans if span.spanLayer == DATABASE_LAYER]


def asked(segment: Any) -> list[str]:
    return [tags(span)["db.statement"] for span in statements(segment)]


def test_a_requests_statement_is_below_it(
    traced: Serve, collector: Collector, database_url: str
) -> None:
    httpx.get(f"{traced().url}/asks")
    segment = collector.segment("GET:/asks")
    [span] = statements(segment)
    assert (span.parentSpanId, span.spanType) == (root(segment).spanId, EXIT)
    assert root(segment).startTime <= span.startTime <= span.endTime <= root(segment).endTime
    told, url = tags(span), make_url(database_url)
    kind, mark = ("SQLite", "?") if url.drivername == "sqlite" else ("PostgreSQL", "$1")
    assert told == {
        "db.type": kind,
        "db.instance": url.database,
        "db.statement": f"SELECT ?, {mark}",
    }
    assert (span.componentId, span.operationName) == (COMPONENTS[kind], f"{kind}/SELECT")
    assert span.peer == (url.database if kind == "SQLite" else f"{url.host}:{url.port or 5432}")
    assert not span.isError
    assert "secret" not in collector.everything()


def test_a_tasks_statement_is_below_it(traced: Serve, collector: Collector) -> None:
    httpx.get(f"{traced().url}/attaches/asks_in_a_task")
    segment = collector.segment("asks_in_a_task")
    [span] = statements(segment)
    assert span.parentSpanId == root(segment).spanId
    assert tags(root(segment))["task.outcome"] == "succeeded"


def test_the_queues_own_statements_are_none(traced: Serve, collector: Collector) -> None:
    server = traced()
    httpx.get(f"{server.url}/enqueues_within")
    httpx.get(f"{server.url}/attaches/asks_in_a_task", headers={"idempotency-key": "once"})
    collector.several("asks_in_a_task", 2)
    for name in ("GET:/enqueues_within", "GET:/attaches/{it}"):
        assert not statements(collector.segment(name))
    server.stop()
    assert {root(segment).operationName for segment in collector.segments} == {
        *("GET:/enqueues_within", "GET:/attaches/{it}", "asks_in_a_task")
    }


def test_another_engines_statements_are_none(traced: Serve, collector: Collector) -> None:
    httpx.get(f"{traced().url}/asks_untold")
    assert not statements(collector.segment("GET:/asks_untold"))


def test_a_failing_statement_is_red(traced: Serve, collector: Collector, database_url: str) -> None:
    server = traced()
    assert httpx.get(f"{server.url}/fails").text == "failed"
    segment = collector.segment("GET:/fails")
    [span] = statements(segment)
    assert span.isError
    told = error_of(span)
    if database_url.startswith("sqlite"):
        assert told == {"event": "error", "error.kind": "sqlite3.OperationalError"}
    else:
        assert told["message"] == "SQLSTATE 42P01"
    assert not root(segment).isError
    assert "tracing failed" not in server.log()


def test_a_statement_cut_off_is_seen(traced: Serve, collector: Collector) -> None:
    httpx.get(f"{traced(REQUEST_TIMEOUT='0.3').url}/attaches/is_cut_off")
    segment = collector.segment("is_cut_off")
    assert tags(root(segment))["task.outcome"] == "timed_out"
    [span] = statements(segment)
    assert span.isError
    assert error_of(span)["error.kind"].endswith("CancelledError")
    assert 0.1 < seconds(span) <= seconds(root(segment)) + 0.001


def test_late_statements_stay_in_their_trace(traced: Serve, collector: Collector) -> None:
    httpx.get(f"{traced().url}/asks_after_its_answer")
    request = collector.segment("GET:/asks_after_its_answer")

    def late() -> list[Any]:
        return [each for each in collector.segments_of(request.traceId) if statements(each)]

    [segment] = collector.wait_for(late)
    assert segment.traceSegmentId != request.traceSegmentId


def test_unsampled_requests_ask_unseen(traced: Serve, collector: Collector) -> None:
    server = traced(SW_AGENT_TRACE_IGNORE_PATH="/asks,/attaches/**")
    for path in ("/asks", "/attaches/asks_in_a_task"):
        assert httpx.get(server.url + path).text == "ok"
    server.wait_for_log("asks_in_a_task succeeded")
    server.stop()
    assert not collector.segments


def test_the_services_users_are_statements(traced: Serve, collector: Collector) -> None:
    url = traced(app="asgi_app:app").url
    ada = {"email": "ada@example.com", "username": "ada"}
    assert [httpx.post(f"{url}/users/", json=ada).status_code for _ in range(2)] == [201, 409]
    httpx.get(f"{url}/users/")
    first, second = collector.several("POST:/users/", 2)
    assert [each.split()[:3] for each in asked(first)][-1] == ["INSERT", "INTO", "users"]
    assert statements(second)[0].isError
    assert [each.split()[0] for each in asked(second)] == ["INSERT", "SELECT"]
    assert not root(second).isError
    [listed] = asked(collector.segment("GET:/users/"))
    assert listed.startswith("SELECT users.id")
    assert "ada@example.com" not in collector.everything()
