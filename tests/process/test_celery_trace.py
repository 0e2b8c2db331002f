"""One trace from the request over the broker to the worker, as a real collector received it."""

import re
from collections.abc import Callable

import httpx
import pytest

from tests.collector import Collector, root, tags
from tests.fleet import NO_SERVER, Fleet
from tests.serving import Server

# The fixture `fleet` is a coroutine, which needs to know where to run.
pytestmark = pytest.mark.usefixtures("anyio_backend")

Traced = Callable[..., Server]
ENTRY, EXIT = 0, 1
MQ = 4  # the layer's number in the protocol


@pytest.fixture
def traced(fleet: Fleet, collector: Collector) -> Fleet:
    fleet.variables |= {
        "SW_AGENT_COLLECTOR_BACKEND_SERVICES": collector.address,
        "SW_AGENT_NAME": "fleet",
        "SW_AGENT_LOG_REPORTER_LEVEL": "INFO",
    }
    return fleet


def test_one_trace_crosses_the_broker(traced: Fleet, collector: Collector, webhook: str) -> None:
    hook = f"http://{webhook}/api/webhooks/1/secret-token"
    web, worker = traced.web(DISCORD_WEBHOOK_URL=hook), traced.worker(DISCORD_WEBHOOK_URL=hook)
    answer = httpx.post(
        f"{web.url}/users/with-notifications/",
        json={"email": "a@example.com", "username": "ann"},
        timeout=20,
    )
    mail_id, discord_id = answer.headers["task-id"].split(", ")
    traced.all_succeed([mail_id, discord_id], 20)

    request = collector.segment("POST:/users/with-notifications/")
    published = collector.segment("Celery/announce_on_discord")
    ran = collector.segment("announce_on_discord")
    assert request.traceId == published.traceId == ran.traceId
    assert httpx.get(f"{web.url}/tasks/{discord_id}").json()["trace_id"] == request.traceId

    sent, done = root(published), root(ran)
    assert (sent.spanType, sent.spanLayer, sent.componentId, sent.peer) == (
        EXIT,
        MQ,
        7011,
        traced.broker.address,
    )
    queue = traced.variables["QUEUE"]
    assert tags(sent) == {
        "task.id": discord_id,
        "task.name": "announce_on_discord",
        "mq.broker": traced.broker.address,
        "mq.queue": queue,
        "mq.topic": "announce_on_discord",
    }
    assert len(published.spans) == 1  # no second one of the broker's client
    assert not sent.isError
    assert [(ref.parentTraceSegmentId, ref.parentEndpoint) for ref in sent.refs] == [
        (request.traceSegmentId, "POST:/users/with-notifications/")
    ]

    assert (done.spanType, done.spanLayer, done.componentId) == (ENTRY, MQ, 7011)
    [ref] = done.refs
    assert (ref.parentTraceSegmentId, ref.parentSpanId) == (published.traceSegmentId, sent.spanId)
    assert (ref.parentEndpoint, ref.networkAddressUsedAtPeer) == (
        sent.operationName,
        traced.broker.address,
    )
    told = tags(done)
    assert told["task.outcome"] == "succeeded"
    assert (told["mq.queue"], told["mq.topic"]) == (queue, "announce_on_discord")
    assert 0 <= int(told["transmission.latency"]) < 20_000
    assert (request.service, published.service, ran.service) == ("fleet", "fleet", "fleet-worker")
    assert (tags(done)["task.id"], tags(done)["task.attempt"]) == (discord_id, "1")
    assert ran.serviceInstance != published.serviceInstance == request.serviceInstance

    [called] = [span for span in ran.spans if span.parentSpanId == done.spanId]
    assert (called.spanType, called.peer) == (EXIT, webhook)
    worker.wait_for_log(f"announce_on_discord started  task={discord_id}  trace={ran.traceId}")
    assert tags(collector.log("message posted to Discord"))["task.id"] == discord_id

    expected = {
        "POST:/users/with-notifications/",
        "GET:/tasks/{id}",
        *(
            "Celery/announce_on_discord",
            "Celery/send_welcome_mail",
            "announce_on_discord",
            "send_welcome_mail",
        ),
    }
    for name in expected:
        collector.segment(name)
    # No orphan of the machinery.
    assert {root(segment).operationName for segment in collector.segments} == expected
    assert not re.search("guest|secret-token", collector.everything())


@NO_SERVER
def test_an_untraced_requests_tasks_stay_untraced(traced: Fleet, collector: Collector) -> None:
    web, worker = traced.web(SW_AGENT_TRACE_IGNORE_PATH="/action"), traced.worker()
    id = httpx.post(f"{web.url}/action").headers["task-id"]
    traced.all_succeed([id], 20)
    worker.stop()
    web.stop()
    assert not collector.segments


@NO_SERVER
def test_a_retry_is_in_the_trace(traced: Fleet, collector: Collector) -> None:
    web, worker = traced.web(), traced.worker(SW_WORKER_NAME="hands")
    id = httpx.post(f"{web.url}/do/raises_until_the_third", json={}).headers["task-id"]
    traced.all_succeed([id], 30)
    attempts = collector.several("raises_until_the_third", 3)
    published = collector.several("Celery/raises_until_the_third", 3)
    assert {each.traceId for each in [*attempts, *published]} == {
        collector.segment("POST:/do/{name}").traceId
    }
    assert sorted((tags(root(each))["task.attempt"], root(each).isError) for each in attempts) == [
        ("1", True),
        ("2", True),
        ("3", False),
    ]
    assert {root(each).refs[0].parentTraceSegmentId for each in attempts} <= {
        each.traceSegmentId for each in published
    }
    assert {each.service for each in attempts} == {"hands"}
    # Celery would say of each that it "succeeded".
    assert worker.log().count("raises_until_the_third succeeded in") == 1
    assert "celery.app.trace" not in worker.log()
    for line in ("raises_until_the_third will be tried again", "raises_until_the_third failed"):
        told = collector.log(line)
        assert told.traceContext.traceId == attempts[0].traceId
        assert tags(told)["task.id"] == id
