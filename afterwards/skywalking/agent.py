"""Every name of SkyWalking's agent that is used, with the types that the agent does not bring.

It guarantees few of them. A test compares each protocol with the installed agent, and so says which
name has moved.
"""

import logging
import sys
from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from dataclasses import dataclass
from queue import Queue
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

if TYPE_CHECKING:
    from afterwards.skywalking.root_span import RootSpan
    from afterwards.skywalking.sending import SegmentQueue

log = logging.getLogger("tracing")

# The plugins that are turned off. sw_asyncpg takes by position what asyncpg 0.32 gives by keyword:
# every statement would fail.
HARMFUL_PLUGINS = ("sw_fastapi", "sw_asyncpg")
# Where there is a broker: their spans are made here, or would only trace the machinery.
FLEET_PLUGINS = ("sw_celery", "sw_redis")


class Kind(Protocol):
    @property
    def is_exit(self) -> bool: ...


class Item(Protocol):
    @property
    def key(self) -> str: ...
    @property
    def val(self) -> str: ...


class Tag(Protocol):
    key: str
    val: str


class Entry(Protocol):
    """A log of a span."""

    timestamp: float  # in seconds
    items: Sequence[Item]


class Segment(Protocol):
    segment_id: object
    related_traces: Sequence[object]
    spans: "MutableSequence[Span]"

    def archive(self, span: "Span | RootSpan") -> None: ...


class Counter(Protocol):
    def next(self) -> int: ...


class Context(Protocol):
    segment: Segment
    primary_endpoint: object
    _correlation: dict[str, str]
    _sid: Counter
    _nspans: int

    def stop(self, span: "Span | RootSpan") -> bool: ...


class Span(Protocol):
    context: "MarkedContext"
    op: str
    kind: Kind
    layer: object
    peer: str | None
    logs: list[Entry]
    start_time: int  # in milliseconds
    end_time: int
    error_occurred: bool

    @property
    def depth(self) -> int: ...
    def start(self) -> None: ...
    def stop(self) -> bool: ...
    def iter_tags(self) -> Iterator[Tag]: ...


class Contexts(Protocol):
    """The class of contexts."""

    def __call__(self) -> "MarkedContext": ...
    def peek(self) -> "Span | RootSpan | None": ...
    def ignore_check(self, op: str) -> Span | None: ...


class Sent(Protocol):
    """One of the protocol's own messages."""

    def SerializeToString(self) -> bytes: ...


class Channel(Protocol):
    def unary_unary(self, method: str) -> Callable[..., object]: ...


class Reporter(Protocol):
    report: Callable[[Iterable[Sent]], None]


class Wire(Protocol):
    """The agent's own protocol, when it is gRPC."""

    channel: Channel
    traces_reporter: Reporter
    report_segment: Callable[..., None]

    def on_error(self) -> None: ...


class Core(Protocol):
    """The agent itself; the mangled names are there once it has started."""

    started_pid: int | None
    archive_segment: Callable[[Any], None]
    archive_log: Callable[[Any], None]
    _SkyWalkingAgent__protocol: Wire
    _SkyWalkingAgent__segment_queue: "Queue[Any] | SegmentQueue"

    def started(self) -> bool: ...
    def start(self) -> None: ...
    def stop(self) -> None: ...


class Config(Protocol):
    agent_asyncio_enhancement: bool
    agent_cause_exception_depth: int
    agent_collector_backend_services: str
    agent_disable_plugins: Sequence[str]
    agent_instance_name: str
    agent_log_reporter_layout: str
    agent_log_reporter_level: str
    agent_name: str
    agent_profile_active: bool
    agent_protocol: str
    agent_trace_reporter_max_buffer_size: int
    correlation_element_max_number: int
    correlation_value_max_length: int

    def ignore_http_method_check(self, method: str) -> object: ...


class Sampler(Protocol):
    def try_sampling(self) -> bool: ...


class Sampling(Protocol):
    """The module; its service is there when SW_SAMPLE_N_PER_3_SECS is set."""

    sampling_service: Sampler | None


class Ids(Protocol):
    """The module that makes ids, with the library that it takes them from."""

    uuid: Any


class LogReporter(Protocol):
    """The module behind the log reporter, with what it asks for each line."""

    get_context: Callable[[], Context]
    sw_filter: Callable[[str], str]


# What is put on the agent's objects here.


class MarkedContext(Context, Protocol):
    task_id: str  # of the task that is traced, or "" for a request


class SentSegment(Segment, Protocol):
    sent: bool


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
    new_primary_endpoint: Callable[["RootSpan"], object]
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
    from skywalking.protocol.language_agent.Tracing_pb2 import SegmentCollection, SpanObject
    from skywalking.trace import context
    from skywalking.trace.span import NoopSpan

    def shape(kind: Any, layer: Any, component: Any) -> Shape:
        sent = SpanObject(spanType=kind.name, spanLayer=layer.name, componentId=component.value)
        return Shape(kind, layer, component, sent.SerializeToString())

    return Agent(
        core=agent,
        config=config,
        sampling=sampling,
        ids=trace,
        log_reporter=sw_logging,
        request=shape(Kind.Entry, Layer.Http, Component.FastAPI),  # Starlette has no component
        attempt=shape(Kind.Local, Layer.Unknown, Component.General),
        consumption=shape(Kind.Entry, Layer.MQ, Component.Celery),
        publication=shape(Kind.Exit, Layer.MQ, Component.Celery),
        new_entry=Log,
        new_item=LogItem,
        new_batch=SegmentCollection,
        new_primary_endpoint=context.PrimaryEndpoint,
        contexts=context.SpanContext,
        new_noop_context=context.NoopContext,
        new_noop_span=NoopSpan,
        spans=context._spans,
        set_spans=context._spans_set,
    )
