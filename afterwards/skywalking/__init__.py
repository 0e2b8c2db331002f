"""Tracing by Apache SkyWalking: requests, attempts at tasks and publications, and what they call.

    skywalking = SkyWalking("127.0.0.1:11800")
    afterwards = Afterwards("sqlite:///data/tasks.db", tracing=skywalking)
    app.add_middleware(skywalking.entry_spans)

The agent (`pip install 'afterwards[skywalking]'`) is imported when it starts, and reads its own
`SW_*` variables. Without a collector's address nothing is imported, traced or logged.
"""

import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from sqlalchemy import Engine
from sqlalchemy.ext.asyncio import AsyncEngine
from starlette.types import ASGIApp, Receive, Scope, Send

from afterwards.addresses import within
from afterwards.brokers import Message
from afterwards.mention import mentioned
from afterwards.model import Attempt
from afterwards.skywalking import life, statements
from afterwards.skywalking.agent import Agent
from afterwards.skywalking.attempts import UNSAMPLED, AttemptSpan, publication_span
from afterwards.skywalking.exits import calling_strangers
from afterwards.skywalking.failure import in_words
from afterwards.skywalking.guarded import guarded
from afterwards.skywalking.names import Span
from afterwards.skywalking.requests import ENTRY_SPAN, traced
from afterwards.skywalking.root_span import RootSpan
from afterwards.skywalking.routes import name_of
from afterwards.skywalking.sw8 import parent_of
from afterwards.skywalking.trust import PRIVATE

__all__ = ["SkyWalking", "calling_strangers"]

log = logging.getLogger("tracing")

UNTRACED = nullcontext()


class SkyWalking:
    """Traces by the agent of this process, if a `collector` is given, from `start` to `stop`.

    `collector` is the address (host:port) that the agent sends to. The agent's profiler samples the
    thread of the event loop for every request; `profile_active` lets it. `trusted` are the networks
    whose `sw8` is continued. A broker's consumers are a service of their own, because SkyWalking
    counts what they consume as requests: `worker_name`, or the service's name and `-worker`. `host`
    is what instances are called by, this machine's name by default.
    """

    def __init__(
        self,
        collector: str | None = None,
        *,
        profile_active: bool = False,
        trusted: Sequence[str] = PRIVATE,
        worker_name: str | None = None,
        host: str | None = None,
    ) -> None:
        self.collector, self.profile_active = collector, profile_active
        self.trusted, self.worker_name, self.host = trusted, worker_name, host
        self._trusts: Callable[[str], bool] = bool
        self._agent: Agent | None = None  # while it runs
        self._status = "off"

    def start(self, *, has_broker: bool = False, is_consumer: bool = False) -> None:
        """Start the agent; if it cannot start, say so in one line and go on without."""
        if not self.collector or self._agent:
            return
        try:
            self._trusts = within(self.trusted)
            self._agent = life.start(
                self.collector,
                profile_active=self.profile_active,
                has_broker=has_broker,
                worker_name=(self.worker_name or "") if is_consumer else None,
                host=self.host,
            )
            self._status = "on"
            guarded(statements.listen)
        except Exception as error:
            self._status = "broken"
            log.warning(
                "SkyWalking's agent cannot start, so nothing is traced: %s", in_words(error)
            )

    async def stop(self) -> None:
        """Stop tracing, and give the agent 3 s to send what it has."""
        if self._agent:
            self._agent, self._status = None, "off"
            await life.stop()

    def status(self) -> str:
        """Return how the tracing is: "off", "on" or "broken"."""
        return self._status

    def trace_id(self) -> str:
        """Return the trace id of what runs in this context, or is spoken of in it, or ""."""
        if self._agent and (carrier := mentioned.get()) is not None:
            parent = parent_of(carrier())
            return parent.trace_id if parent else ""
        # Never get_context(): without a span it would draw on the sampling budget.
        span = self._agent and self._agent.contexts.peek()
        if isinstance(span, RootSpan):
            return span.trace_id
        return str(span.context.segment.related_traces[0]) if span else ""

    def entry_spans(self, app: ASGIApp) -> ASGIApp:
        """Make the middleware that gives each request its entry span; it goes before all others."""

        def middleware(scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
            agent = self._agent
            # An application within another's is part of the same request.
            if agent and scope["type"] == "http" and ENTRY_SPAN not in scope:
                return traced(agent, self._trusts, app, scope, receive, send)
            return app(scope, receive, send)

        return middleware

    def trace_statements(self, engine: AsyncEngine | Engine) -> None:
        """Make exit spans of the statements that requests and tasks execute through an engine.

        That of `Afterwards.database` need not be given. Raises ValueError for an engine of neither
        Postgres nor SQLite.
        """
        statements.trace(engine)

    def carrier(self, scope: Mapping[str, Any] | None) -> str:
        """Return the trace context of the request, or with None that of what runs in this context.

        It is text in the form of `sw8`, for the tasks that are enqueued: "" where nothing is
        traced, and "0" for what is not sampled.
        """
        if not self._agent:
            return ""
        span = scope.get(ENTRY_SPAN) if scope else next(iter(self._agent.spans()), None)
        return (span and guarded(_carrier_of, span, scope)) or ""

    def attempt(
        self, attempt: Attempt, *, is_consumed: bool = False
    ) -> AbstractContextManager[None]:
        """Surround an attempt with a segment of its own, under the span that enqueued the task."""
        agent = self._agent
        if agent is None:
            return UNTRACED
        return AttemptSpan(agent, attempt, agent.consumption if is_consumed else agent.attempt)

    def tell(self, process: object, state: Mapping[str, float]) -> None:
        """Hear how a process's queue stands, for the meters."""
        if self._agent:
            self._agent.meters.tell(process, state)

    def publication(self, message: Message, address: str) -> AbstractContextManager[str]:
        """Surround a publication with an exit span, and give the carrier that travels with it."""
        if self._agent:
            return publication_span(self._agent, message, address)
        return nullcontext(message.carrier)


def _carrier_of(span: RootSpan | Span, scope: Mapping[str, Any] | None) -> str:
    if not isinstance(span, RootSpan):
        # A span that is not sent: one of ours, or the lifespan's, under which nothing is enqueued.
        return UNSAMPLED if hasattr(span.context, "task_id") else ""
    if request := scope or span.scope:
        span.op = name_of(request)  # the reference bears the final name
    return span.written()
