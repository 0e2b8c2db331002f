"""A segment of one span is written as the agent's own classes would have written it."""

import dataclasses
import random
from collections.abc import Iterator
from queue import Queue
from types import SimpleNamespace
from typing import Any

import pytest

from afterwards.skywalking import agent as agents
from afterwards.skywalking.lone import segment_of
from afterwards.skywalking.root_span import RootSpan
from afterwards.skywalking.sw8 import Parent, parent_of, written

TEXTS = ["", "a", "GET:/items/{id}", "über 漢字 \U0001f600", "\0\n\x7f", "x" * 127, "y" * 128]
LONG = ["ü" * 8191, "z" * 20_000]
LONE_SURROGATE = "\ud800"
TIMES = [-(2**63), -1, 0, 1, 127, 128, 1_764_000_000_000, 2**42, 2**63 - 1]
IDS = ["0", "a" * 128, "trace.1", "5" * 32]
PLACES = ["caller", "über-1", "/" + "p" * 511]
SPAN_IDS = [0, 1, 127, 128, 2**31 - 1]


@pytest.fixture(scope="module")
def agent() -> agents.Agent:
    loaded = agents.load()
    return dataclasses.replace(loaded, core=SimpleNamespace(archive_segment=lambda segment: None))


@pytest.fixture(autouse=True)
def name(agent: agents.Agent, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(agent.config, "agent_name", "unsere Dienste: ü")
    monkeypatch.setattr(agent.config, "agent_instance_name", "web.1-4711")


def by_the_agent(agent: agents.Agent, span: RootSpan) -> bytes:
    """Give what the agent's own reporter would send."""
    from skywalking.agent.protocol.grpc import GrpcProtocol

    queue, messages = Queue[Any](), list[Any]()
    queue.put(span)
    reporter = SimpleNamespace(report=messages.extend)
    GrpcProtocol.report_segment(SimpleNamespace(traces_reporter=reporter), queue, block=False)
    return agent.new_batch(segments=messages).SerializeToString()


def a_carrier(agent: agents.Agent, choose: random.Random) -> str:
    config = agent.config
    elsewhere = choose.choice(PLACES), choose.choice(PLACES)
    here = config.agent_name, config.agent_instance_name
    ids = choose.choice(IDS), choose.choice(IDS), choose.choice(SPAN_IDS)
    address = choose.choice(["", "10.0.0.1:80"])
    carrier = written(
        Parent(*ids, *choose.choice([here, elsewhere]), choose.choice(PLACES), address)
    )
    assert parent_of(carrier)
    return choose.choice([carrier, carrier, "", "0", "garbage"])


def spans(agent: agents.Agent) -> Iterator[RootSpan]:
    choose = random.Random(7)
    shapes = [agent.request, agent.attempt, agent.consumption, agent.publication]
    for _ in range(3000):
        texts = TEXTS + LONG if choose.random() < 0.1 else TEXTS
        tags = {
            choose.choice(texts): choose.choice([*texts, LONE_SURROGATE])
            for _ in range(choose.randrange(9))
        }
        carrier = a_carrier(agent, choose)
        span = RootSpan(agent, choose.choice(texts), choose.choice(shapes), carrier, tags)
        span.peer = choose.choice(texts)
        span.start_time, span.end_time = choose.choice(TIMES), choose.choice(TIMES)
        span.error_occurred = choose.random() < 0.5
        if choose.random() < 0.5:
            span.segment_id = choose.choice(IDS)
        yield span


def test_lone_spans_are_the_agents_bytes(agent: agents.Agent) -> None:
    several = list(spans(agent))
    for span in several:
        assert segment_of(span) == by_the_agent(agent, span)
    assert len({segment_of(span) for span in several}) > 2900  # they do differ
    assert {len(span.refs) for span in several} == {0, 1}
    assert {ref.ref_type for span in several for ref in span.refs} == {
        "CrossProcess",
        "CrossThread",
    }


def test_another_span_is_other_bytes(agent: agents.Agent) -> None:
    span = RootSpan(agent, "name", agent.request, "", {"key": "value"})
    before = by_the_agent(agent, span)
    changes: list[dict[str, Any]] = [{"op": "names"}, {"end_time": 1}, {"tags": {}}]
    for change in [*changes, {"error_occurred": True}]:
        vars(span).update(change)
        after = segment_of(span)
        assert after != before
        before = after
