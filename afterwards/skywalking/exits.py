"""Exit spans: one for every call, whatever its path, and what is told of whom it reaches."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from afterwards.skywalking.agent import Agent
from afterwards.skywalking.names import Span

# A name that the agent ignores for no setting: it would leave out the paths that end in ".png", as
# it does for requests that come in.
NOT_IGNORED = "exit"

_shared: ContextVar[str] = ContextVar("shared_peer", default="")


@contextmanager
def calling_strangers(name: str) -> Iterator[None]:
    """Trace calls to hosts that strangers chose under one peer's name, and tell those nothing.

    Otherwise each host is a node of the topology, and learns this service's name from its `sw8`.
    """
    token = _shared.set(name)
    try:
        yield
    finally:
        _shared.reset(token)


def have_exit_spans_for_all(agent: Agent) -> None:
    """Have the agent make them."""
    make = agent.contexts.new_exit_span

    def new_exit_span(self: object, op: str, peer: str, *more: Any, **named: Any) -> Span:
        shared = _shared.get()
        span: Span = make(self, NOT_IGNORED, shared or peer, *more, **named)
        span.op = op
        if shared:
            span.inject = tuple  # of no header
        return span

    agent.contexts.new_exit_span = new_exit_span
