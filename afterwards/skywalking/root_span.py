"""The first span of a segment, shaped as the agent's but cheap: most segments have no other.

The agent makes four objects and some forty attributes for a segment of one span; with two segments
a request that was most of what a traced request cost. What stands here is made at once; the agent's
own context is made when a plugin asks for it, to hang a span below this one, and what is only sent
is made by the thread that sends.
"""

import time
from collections.abc import Iterator, Mapping, Sequence
from random import getrandbits
from types import MappingProxyType
from typing import NamedTuple

from starlette.types import Scope

from afterwards.redaction import storable
from afterwards.skywalking.agent import Agent, Shape
from afterwards.skywalking.failure import kind_of, message_of, stack_of
from afterwards.skywalking.names import Entry, Item, Kind, MarkedContext, Segment
from afterwards.skywalking.routes import name_of
from afterwards.skywalking.sw8 import Parent, parent_of, written


class Reference(NamedTuple):
    """The span that caused another, as the agent's reporter reads it."""

    ref_type: str
    trace_id: str
    segment_id: str
    span_id: int
    service: str
    service_instance: str
    endpoint: str
    client_address: str


class SentTag(NamedTuple):
    """A tag as the agent's reporter reads it."""

    key: str
    val: str


class Endpoint:
    """What the agent asks for the name of a segment's first span, whatever hangs below it."""

    def __init__(self, root: "RootSpan") -> None:
        self.root = root

    def get_name(self) -> str:
        """Name the span; a request that has not been answered by the route that is known by now."""
        return self.root.op if self.root.scope is None else name_of(self.root.scope)

    def set_primary_endpoint(self, span: object) -> None:
        """Stay with the first."""


def new_id() -> str:
    """Make the id of a segment: 32 hex digits, which could be guessed."""
    return getrandbits(128).to_bytes(16).hex()


class RootSpan:
    """A span, and as long as it is alone also its segment, as the agent reads them.

    `carrier` names the span that caused this one, as text in the form of `sw8`; "" if there is
    none. `scope` is the request that an entry span stands for, until its answer begins: by then the
    route is known, and so the name.
    """

    # What most spans leave as it is.
    sid, pid, depth, end_time = 0, -1, 1, 0
    is_size_limited = error_occurred = sent = False
    peer = task_id = ""
    correlation: Mapping[str, str] = MappingProxyType({})
    logs: Sequence[Entry] = ()
    scope: Scope | None = None
    _parent: Parent | None = None
    _context: MarkedContext | None = None

    def __init__(
        self, agent: Agent, op: str, shape: Shape, carrier: str, tags: dict[str, str]
    ) -> None:
        self.agent = agent
        self.op = op
        self.shape = shape
        self.carrier = carrier
        self.tags = tags
        self.start_time = int(time.time() * 1000)
        self.segment_id = new_id()
        agent.set_spans([self])

    # --- the span ---

    @property
    def kind(self) -> Kind:
        return self.shape.kind

    @property
    def layer(self) -> object:
        return self.shape.layer

    @property
    def component(self) -> object:
        return self.shape.component

    inherit = component

    @property
    def context(self) -> MarkedContext:
        """The agent's own context, for spans below this one."""
        if self._context is None:
            context = self._context = self.agent.contexts()
            context.segment.segment_id = self.segment_id
            context.segment.related_traces = self.related_traces
            context._correlation = {**self.correlation}
            context._sid.next()  # 0 is this span's
            context._nspans = 1
            context.primary_endpoint = Endpoint(self)
            context.task_id = self.task_id
        return self._context

    @property
    def parent(self) -> Parent | None:
        """The span that caused this one."""
        if self._parent is None and self.carrier:
            self._parent = parent_of(self.carrier)
        return self._parent

    @property
    def refs(self) -> list[Reference]:
        """The same as the agent's reporter wants it."""
        parent, config = self.parent, self.agent.config
        if parent is None:
            return []
        here = config.agent_name, config.agent_instance_name
        is_here = (parent.service, parent.instance) == here and not parent.address
        return [Reference("CrossThread" if is_here else "CrossProcess", *parent)]

    def tag(self, tag: Item) -> None:
        """Set one of the agent's tags, as its users do."""
        self.tags[tag.key] = tag.val

    def iter_tags(self) -> Iterator[SentTag]:
        return (SentTag(key, storable(value)) for key, value in self.tags.items())

    def fail(self, error: BaseException) -> None:
        """Mark the span as an error, and log with it what was raised and where."""
        self.error_occurred = True
        # Not the agent's raised(): its logs bear its import time and the outermost frames.
        kind, message, stack = kind_of(error), message_of(error), stack_of(error)
        self.tell({"event": "error", "error.kind": kind, "message": message, "stack": stack})

    def tell(self, items: Mapping[str, str]) -> None:
        """Log something with the span."""
        told = [self.agent.new_item(key, storable(value)) for key, value in items.items()]
        self.logs = [*self.logs, self.agent.new_entry(timestamp=time.time(), items=told)]

    def stop(self) -> bool:
        """End the span; False if others of its segment are still open."""
        self.depth = 0
        if self._context is not None:
            return bool(self._context.stop(self))
        self.end_time = int(time.time() * 1000)
        self.agent.set_spans([])
        self.agent.core.archive_segment(self)
        return True

    def finish(self, segment: Segment) -> bool:
        """Be told by the context that the span has ended."""
        self.end_time = int(time.time() * 1000)
        segment.archive(self)
        return True

    def written(self, address: str = "") -> str:
        """Write the span as a carrier, for what it causes; `address` is the one that it calls."""
        config = self.agent.config
        here = config.agent_name, config.agent_instance_name
        return written(Parent(self.trace_id, self.segment_id, self.sid, *here, self.op, address))

    # --- the segment ---

    @property
    def trace_id(self) -> str:
        # A trace that begins here bears the id of its first segment.
        return self.parent.trace_id if self.parent else self.segment_id

    @property
    def related_traces(self) -> list[str]:
        return [self.trace_id]

    @property
    def spans(self) -> "list[RootSpan]":
        return [self]
