"""The page's code traces by OpenTelemetry: its spans are those that a real exporter was given."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from afterwards import registry, task
from afterwards.brokers import Message
from tests import pages
from tests.lifespan import living

pytest.importorskip("opentelemetry.sdk")

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import StatusCode

pytestmark = pytest.mark.anyio


class Page:
    """The page's names, and what its spans were exported as."""

    def __init__(self) -> None:
        self.names: dict[str, Any] = pages.run("docs/opentelemetry.md")
        self._exporter = InMemorySpanExporter()
        self.names["provider"].add_span_processor(SimpleSpanProcessor(self._exporter))

    async def post(self, **headers: str) -> str:
        """Post a user; give the id of its task."""
        transport = httpx.ASGITransport(self.names["app"])
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            answer = await client.post("/users?email=ada@example.com", headers=headers)
        assert answer.status_code == 201
        return str(answer.headers["Task-Id"])

    def spans(self, name: str) -> list[ReadableSpan]:
        return [span for span in self._exporter.get_finished_spans() if span.name == name]


@pytest.fixture
async def page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Page]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(registry, "_by_name", {**registry._by_name})
    page = Page()
    yield page
    page.names["provider"].shutdown()


async def test_an_attempt_links_to_its_request(page: Page) -> None:
    caller = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with living(page.names["app"]):
        id = await page.post(traceparent=caller)
    [request], [attempt] = page.spans("POST /users"), page.spans("welcome")
    assert f"{request.context.trace_id:032x}" == caller.split("-")[1]
    [link] = attempt.links
    assert link.context.span_id == request.context.span_id
    assert link.context.trace_id == request.context.trace_id
    assert attempt.parent is None
    told = {"task.id": id, "task.name": "welcome", "task.attempt": 1, "task.outcome": "succeeded"}
    assert dict(attempt.attributes or {}) == told
    assert attempt.status.status_code is StatusCode.UNSET


async def test_a_failed_attempt_is_an_error(page: Page) -> None:
    @task("fails", attempts=1)
    async def fails() -> None:
        raise ValueError("as asked")

    async with living(page.names["app"]):
        await page.names["afterwards"].enqueue(fails)
    [attempt] = page.spans("fails")
    assert attempt.status.status_code is StatusCode.ERROR
    [event] = attempt.events
    assert (event.attributes or {})["exception.message"] == "as asked"
    assert not attempt.links


async def test_subtasks_link_to_their_task(page: Page) -> None:
    @task("inner")
    async def inner() -> None: ...

    @task("outer")
    async def outer() -> None:
        await page.names["afterwards"].enqueue(inner)

    async with living(page.names["app"]):
        await page.names["afterwards"].enqueue(outer)
        await page.names["afterwards"].process.slots.drain(10)
    [enqueuer], [attempt] = page.spans("outer"), page.spans("inner")
    [link] = attempt.links
    assert link.context.span_id == enqueuer.context.span_id


async def test_a_publication_links_to_its_request(page: Page) -> None:
    tracing, caller = page.names["afterwards"].tracing, "00-" + "a" * 32 + "-" + "b" * 16 + "-01"
    with tracing.publication(Message("task-1", "welcome", caller), "broker:5672") as carrier:
        pass
    [published] = page.spans("publish welcome")
    assert f"{published.links[0].context.span_id:016x}" == "b" * 16
    assert carrier.split("-")[2] == f"{published.context.span_id:016x}"
