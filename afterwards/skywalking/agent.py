"""The agent as it is imported, and what kinds of spans are made with it."""

import logging
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple

from afterwards.skywalking.meters import Kinds, Meters
from afterwards.skywalking.names import (
    Config,
    Context,
    Contexts,
    Core,
    Entry,
    Ids,
    Item,
    Kind,
    LogReporter,
    MarkedContext,
    Sampling,
    Sent,
    Span,
    Tag,
)

if TYPE_CHECKING:
    from afterwards.skywalking.root_span import RootSpan

log = logging.getLogger("tracing")

# The plugins that are turned off. sw_asyncpg takes by position what asyncpg 0.32 gives by keyword:
# every statement would fail.
HARMFUL_PLUGINS = ("sw_fastapi", "sw_asyncpg")
# Where there is a broker: their spans are made here, or would only trace the machinery.
FLEET_PLUGINS = ("sw_celery", "sw_amqp", "sw_redis")


class Shape(NamedTuple):
    """What kind of span it is, and how SkyWalking's pages show it; also as it is sent."""

    kind: Kind
    layer: object
    component: object
    written: bytes


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent as it was imported."""

    core: Core
    config: Config
    sampling: Sampling
    ids: Ids
    log_reporter: LogReporter
    request: Shape
    attempt: Shape
    consumption: Shape
    publication: Shape
    new_entry: Callable[..., Entry]
    new_item: Callable[[str, str], Item]
    new_batch: Callable[..., Sent]
    new_tag: Callable[[str, str], Tag]
    databases: Mapping[str, tuple[object, object]]  # by SQLAlchemy's name: layer and component
    meters: Meters
    contexts: Contexts
    new_noop_context: Callable[[], MarkedContext]
    new_noop_span: Callable[[Context], Span]
    spans: "Callable[[], Sequence[Span | RootSpan]]"  # of this context, the innermost last
    set_spans: Callable[[Iterable[Any]], object]

    def start_noop_span(self, task_id: str | None = None) -> Span:
        """Start a span that is not sent: on the stack, it keeps calls from being traced as orphans.

        With an id, or "", it stands for a task or request that is not traced; so are its tasks.
        """
        self.set_spans([])
        span = self.new_noop_span(self.new_noop_context())
        if task_id is not None:
            span.context.task_id = task_id
        span.start()
        return span


def load() -> Agent:
    """Import the agent: here, because who is not traced need not have it, nor pay for gRPC."""
    from skywalking import Component, Kind, Layer, Log, LogItem, config

    if config.agent_asyncio_enhancement and "skywalking.agent" not in sys.modules:
        config.agent_asyncio_enhancement = False  # which that module looks at when it is imported
        log.warning(
            "SW_AGENT_ASYNCIO_ENHANCEMENT is ignored: with it the agent fails on the first spans"
        )
    from skywalking import sampling, trace
    from skywalking.agent import agent
    from skywalking.log import sw_logging
    from skywalking.meter.counter import Counter, CounterMode
    from skywalking.meter.gauge import Gauge
    from skywalking.meter.histogram import Histogram
    from skywalking.protocol.language_agent.Tracing_pb2 import SegmentCollection, SpanObject
    from skywalking.trace import context
    from skywalking.trace.span import NoopSpan
    from skywalking.trace.tags import Tag as AgentsTag

    def shape(kind: Any, layer: Any, component: Any) -> Shape:
        sent = SpanObject(spanType=kind.name, spanLayer=layer.name, componentId=component.value)
        return Shape(kind, layer, component, sent.SerializeToString())

    def tag(key: str, value: str) -> Tag:
        made = AgentsTag(value)
        made.key = key
        return made  # type: ignore[no-any-return]

    # The OAP knows none for Starlette; "Python" is what the agent takes for plain HTTP servers.
    framework = Component.FastAPI if "fastapi" in sys.modules else Component.General
    return Agent(
        core=agent,
        config=config,
        sampling=sampling,
        ids=trace,
        log_reporter=sw_logging,
        request=shape(Kind.Entry, Layer.Http, framework),
        # No layer that the OAP counts: MQ and FAAS would make services of their own.
        attempt=shape(Kind.Local, Layer.RPCFramework, Component.General),
        consumption=shape(Kind.Entry, Layer.MQ, Component.Celery),
        publication=shape(Kind.Exit, Layer.MQ, Component.Celery),
        new_entry=Log,
        new_item=LogItem,
        new_batch=SegmentCollection,
        new_tag=tag,
        databases={
            "postgresql": (Layer.Database, Component.PostgreSQL),
            "sqlite": (Layer.Database, SimpleNamespace(value=31)),  # the OAP's, not the agent's
        },
        meters=Meters(
            Kinds(
                new_gauge=lambda name, values: Gauge.Builder(name, values).build(),
                new_counter=lambda name: Counter.Builder(name, CounterMode.INCREMENT).build(),
                new_histogram=lambda name, steps: Histogram.Builder(name, steps).build(),
            )
        ),
        contexts=context.SpanContext,
        new_noop_context=context.NoopContext,
        new_noop_span=NoopSpan,
        spans=context._spans,
        set_spans=context._spans_set,
    )
