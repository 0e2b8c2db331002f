"""Every name of SkyWalking's agent that is used, with the types that the agent does not bring.

It guarantees few of them. A test compares each protocol with the installed agent, and so says which
name has moved.
"""

from collections.abc import Callable, Iterable, Iterator, MutableSequence, Sequence
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from afterwards.skywalking.root_span import RootSpan


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
    def new_exit_span(self, op: str, peer: str, component: Any) -> "Span": ...


class Span(Protocol):
    context: "MarkedContext"
    op: str
    inject: Callable[[], Iterable[Item]]
    kind: Kind
    layer: object
    peer: str | None
    sid: int
    logs: list[Entry]
    start_time: int  # in milliseconds
    end_time: int
    error_occurred: bool

    @property
    def depth(self) -> int: ...
    def start(self) -> None: ...
    def stop(self) -> bool: ...
    def tag(self, tag: Tag) -> object: ...
    def iter_tags(self) -> Iterator[Tag]: ...


class Contexts(Protocol):
    """The class of contexts."""

    def __call__(self) -> "MarkedContext": ...

    new_exit_span: Callable[..., Span]

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
    _SkyWalkingAgent__segment_queue: Any  # a queue.Queue, or our own

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
    agent_meter_reporter_active: bool
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
