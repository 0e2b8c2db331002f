"""How the service is seen in Apache SkyWalking: the only module that knows the agent.

What differs from the agent's own FastAPI plugin, which patches any Starlette, and why:

1. A request's entry span ends with the last byte of its answer, not with its background tasks.
2. An attempt at a task is a segment of its own that refers to the request's span. The reference is
text, so that it can
   be stored with the task and used hours later in another process.
3. A span is named for its route, so that ids in paths make no endpoints; unmatched paths share one
name.
4. What a client sends as `sw8` is untrusted: a good one is continued, any other is as good as none.
5. A request starts with no active span: one left by the connection's previous request would adopt
it (uvicorn#3158).
6. Spans and log lines lose what may be a secret on their way out, whichever plugin made them.
7. The agent gets 3 s to send what it has when the service stops, in a thread that cannot hold the
process.
8. The agent's complaints are single lines in the service's own log.
"""

import asyncio
import inspect
import logging
import os
import re
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from types import SimpleNamespace
from typing import Any

from starlette.middleware.exceptions import ExceptionMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterwards.brokers import HandOff
from afterwards.model import Attempt, Outcome
from afterwards.redaction import encodable
from afterwards.skywalking import agent_log, leaving
from afterwards.skywalking.failure import in_words, kind_of, message_of, stack_of
from afterwards.skywalking.guarded import guarded
from afterwards.skywalking.request_in_words import only, operation, url
from afterwards.skywalking.root_span import RootSpan, new_id
from afterwards.skywalking.sw8 import Parent, correlation_of, written
from settings import settings

log = logging.getLogger("tracing")

FLUSH_SECONDS = 3
FLEET_PLUGINS = (
    "sw_celery",
    "sw_redis",
)  # their spans are made here, or would only trace the machinery
ENTRY_SPAN = "tracing.entry_span"  # where a request's scope keeps it
UNTRACED = nullcontext()
UNSAMPLED = "0"  # the carrier of a request that is not traced; its tasks must not be traced either

_sky: Any = None  # what `_load` found, while the agent runs
_status = "off"


def start(*, in_fleet: bool = False) -> None:
    """Start the agent if a collector is configured; if it cannot start, say so in one line and go on without.

    `in_fleet` is for a process that hands off to a broker, or is told by one.
    """
    global _sky, _status
    if not settings.sw_agent_collector_backend_services or _status == "on":
        return
    try:
        sky = _load()
        _start_agent(sky, FLEET_PLUGINS if in_fleet else ())
    except Exception as error:
        _status = "broken"
        log.warning("SkyWalking's agent cannot start, so nothing is traced: %s", in_words(error))
    else:
        _sky, _status = sky, "on"


async def stop() -> None:
    """Stop tracing, and give the agent 3 s to send what it has."""
    global _sky, _status
    if _sky is None:
        return
    agent, _sky, _status = _sky.agent, None, "off"
    loop, ended = asyncio.get_running_loop(), asyncio.Event()

    def flush() -> None:
        try:
            agent.stop()
        except Exception as error:
            log.warning("SkyWalking did not get the last segments: %s", in_words(error))
        with suppress(RuntimeError):  # the loop is closed: nobody waits any more
            loop.call_soon_threadsafe(ended.set)

    # Not asyncio.to_thread: its threads are joined at exit, and this one may hang in a collector
    # that never answers.
    threading.Thread(target=flush, name="tracing-flush", daemon=True).start()
    try:
        async with asyncio.timeout(FLUSH_SECONDS):
            await ended.wait()
    except TimeoutError:
        log.warning(
            "SkyWalking did not take the last segments within %d s; they are lost", FLUSH_SECONDS
        )


def status() -> str:
    """Say how the tracing is: "off", "on" or "broken"."""
    return _status


def trace_id() -> str:
    """Give the trace id of what runs in this context, or ""."""
    # Never get_context(): without a span it would draw on the sampling budget.
    span = _sky and _sky.SpanContext.peek()
    if isinstance(span, RootSpan):
        return span.trace_id
    return str(span.context.segment.related_traces[0]) if span else ""


# --- a request ---


class RequestTracing:
    """The middleware that makes a request's entry span; it comes before all others."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sky = _sky
        span = guarded(_start_entry_span, sky, scope) if sky and scope["type"] == "http" else None
        if span is None:
            await self.app(scope, receive, send)
            return
        status = 0

        async def watched_send(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            await send(message)
            if message["type"] == "http.response.body" and not message.get("more_body"):
                guarded(_end_entry_span, sky, span, scope, status)

        try:
            await self.app(scope, receive, watched_send)
        except BaseException as error:
            guarded(_end_entry_span, sky, span, scope, status or 500, error)
            raise
        finally:
            guarded(_end_entry_span, sky, span, scope, status)


def carrier(request: Request) -> str:
    """Give the request's trace context as text in the form of `sw8`, for its tasks.

    It is "" when tracing is off, and "0" when this request is not sampled.
    """
    span = request.scope.get(ENTRY_SPAN)
    return (guarded(_carrier_of, _sky, span, request.scope) or "") if _sky and span else ""


def _start_entry_span(sky: Any, scope: Scope) -> Any:
    sky.set_spans([])
    if _is_ignored(sky, scope):
        span = scope[ENTRY_SPAN] = sky.NoopSpan(sky.NoopContext())
        span.start()
        return span
    headers = scope["headers"]
    sw8 = only(headers, b"sw8")
    # Starlette has no component id of its own.
    span = RootSpan(sky, scope["path"], sky.Kind.Entry, sky.Layer.Http, sky.Component.FastAPI, sw8)
    if sw8:
        if span.parent and span.parent.address:
            span.correlation = _correlation(sky, headers)
        else:  # a carrier without an address is one of ours, for tasks
            span.carrier = ""
    client = scope.get("client")
    span.peer = f"{client[0]}:{client[1]}" if client else "unknown"
    span.tags = {"http.method": scope["method"][:32], "http.url": url(scope)}
    scope[ENTRY_SPAN] = span
    return span


def _is_ignored(sky: Any, scope: Scope) -> bool:
    if sky.config.ignore_http_method_check(scope["method"]):
        return True
    sampling = sky.sampling.sampling_service
    if sampling and not sampling.try_sampling():
        return True
    # The raw path, as the agent's plugin does, for SW_AGENT_TRACE_IGNORE_PATH and
    # SW_AGENT_IGNORE_SUFFIX.
    return sky.SpanContext.ignore_check(scope["path"]) is not None


def _end_entry_span(
    sky: Any, span: Any, scope: Scope, status: int, error: BaseException | None = None
) -> None:
    if not span.depth:
        return
    span.op = operation(scope)
    if status:
        span.tags["http.status_code"] = str(status)
    span.error_occurred = status >= 500
    if error is not None:
        _log_error(sky, span, error)
    span.stop()


def _carrier_of(sky: Any, span: Any, scope: Scope) -> str:
    if isinstance(span, sky.NoopSpan):
        return UNSAMPLED
    span.op = operation(scope)  # the reference bears the final name
    return _written(sky, span)


def _written(sky: Any, span: Any, address: str = "") -> str:
    config = sky.config
    return written(
        Parent(
            trace_id=span.trace_id,
            segment_id=span.segment_id,
            span_id=span.sid,
            service=config.agent_name,
            instance=config.agent_instance_name,
            endpoint=span.op,
            address=address,
        )
    )


def _correlation(sky: Any, headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    header, config = only(headers, b"sw8-correlation"), sky.config
    return correlation_of(
        header, config.correlation_element_max_number, config.correlation_value_max_length
    )


# --- an attempt at a task ---


def attempt_span(attempt: Attempt) -> AbstractContextManager[None]:
    """Surround an attempt with a segment of its own, under the request that its carrier names."""
    return _AttemptSpan(_sky, attempt) if _sky else UNTRACED


def handed_off_attempt_span(attempt: Attempt) -> AbstractContextManager[None]:
    """Surround an attempt as `attempt_span` does, in a process that a broker told of the task: by an entry span."""
    return _AttemptSpan(_sky, attempt, is_entry=True) if _sky else UNTRACED


class _AttemptSpan(AbstractContextManager[None]):
    __slots__ = ("attempt", "before", "is_entry", "sky", "span")

    def __init__(self, sky: Any, attempt: Attempt, *, is_entry: bool = False) -> None:
        self.sky = sky
        self.attempt = attempt
        self.is_entry = is_entry

    def __enter__(self) -> None:
        self.before = self.sky.get_spans()
        self.span = guarded(_start_attempt_span, self.sky, self.attempt, self.is_entry)

    def __exit__(self, *_: object) -> None:
        if self.span is not None:
            guarded(_end_attempt_span, self.sky, self.span, self.attempt)
        self.sky.set_spans(self.before)


def _start_attempt_span(sky: Any, attempt: Attempt, is_entry: bool) -> Any:
    task = attempt.task
    if task.carrier == UNSAMPLED or sky.SpanContext.ignore_check(task.name) is not None:
        sky.set_spans([])
        span = sky.NoopSpan(
            sky.NoopContext()
        )  # on the stack, what the task calls is not traced as an orphan
        span.context.task_id = task.id  # for log lines
        span.start()
        return span
    known = sky.Kind.Local, sky.Layer.Unknown, sky.Component.General
    if is_entry:
        known = sky.Kind.Entry, sky.Layer.MQ, sky.Component.Celery
    span = RootSpan(sky, encodable(task.name), *known, task.carrier)
    span.task_id = task.id
    span.tags = {
        "task.id": task.id,
        "task.name": task.name,
        "task.attempt": str(task.attempt),
        "task.wait_ms": str(int(attempt.waited * 1000)),
    }
    return span


@contextmanager
def hand_off_span(task: HandOff, address: str) -> Iterator[str]:
    """Surround the telling of a broker about a task, and give the carrier that travels with it."""
    sky = _sky
    span = (
        guarded(_start_hand_off_span, sky, task, address)
        if sky and task.carrier != UNSAMPLED
        else None
    )
    try:
        yield (span and guarded(_written, sky, span, address)) or task.carrier
    except BaseException as error:
        guarded(_log_error, sky, span, error) if span else None
        raise
    finally:
        guarded(span.stop) if span else None


def _start_hand_off_span(sky: Any, task: HandOff, address: str) -> Any:
    name = f"Celery/{encodable(task.name)}"
    span = RootSpan(sky, name, sky.Kind.Exit, sky.Layer.MQ, sky.Component.Celery, task.carrier)
    span.peer = address
    span.tags = {"task.id": task.id, "task.name": task.name, "mq.broker": address}
    return span


def _end_attempt_span(sky: Any, span: Any, attempt: Attempt) -> None:
    span.tags["task.outcome"] = (attempt.outcome or "")[:]
    if attempt.outcome in (Outcome.FAILED, Outcome.TIMED_OUT) and attempt.error is not None:
        _log_error(sky, span, attempt.error)
    complete = span.stop()
    if not complete and attempt.outcome in (Outcome.TIMED_OUT, Outcome.CANCELLED, Outcome.RELEASED):
        # A thread that nothing can stop still has a span open, perhaps for ever; the segment does
        # not wait for it.
        sky.agent.archive_segment(span.context.segment)


def _log_error(sky: Any, span: Any, error: BaseException) -> None:
    span.error_occurred = True
    items = {
        "event": "error",
        "error.kind": kind_of(error),
        "message": message_of(error),
        "stack": stack_of(error),
    }
    # Not span.raised(): its logs bear the agent's import time and the outermost frames.
    logged = [sky.LogItem(key, encodable(value)) for key, value in items.items()]
    span.logs.append(sky.Log(timestamp=time.time(), items=logged))


# --- the agent ---


def _load() -> Any:
    """Import of the agent what is used here; it is untyped, hence Any.

    In a function, because the service must run without the package, and untraced must not pay for
    gRPC.
    """
    from skywalking import Component, Kind, Layer, Log, LogItem, config

    if (
        config.agent_asyncio_enhancement and "skywalking.agent" not in sys.modules
    ):  # which looks at it on import
        config.agent_asyncio_enhancement = False
        log.warning(
            "SW_AGENT_ASYNCIO_ENHANCEMENT is ignored, because the agent fails on the first spans with it"
        )
    from skywalking import sampling, trace
    from skywalking.agent import agent
    from skywalking.log import sw_logging
    from skywalking.protocol.language_agent.Tracing_pb2 import SegmentCollection
    from skywalking.trace import context
    from skywalking.trace.span import NoopSpan

    return SimpleNamespace(
        **{each.__name__: each for each in (Component, Kind, Layer, Log, LogItem, NoopSpan)},
        SpanContext=context.SpanContext,
        NoopContext=context.NoopContext,
        PrimaryEndpoint=context.PrimaryEndpoint,
        get_spans=context._spans,
        set_spans=context._spans_set,
        agent=agent,
        config=config,
        sw_logging=sw_logging,
        trace=trace,
        sampling=sampling,
        SegmentCollection=SegmentCollection,
    )


def _start_agent(sky: Any, without: Sequence[str]) -> None:
    agent, config = sky.agent, sky.config
    _undo_sw_fastapi()
    _check(sky)
    agent_log.calm(
        logging.getLogger("skywalking"), str(settings.sw_agent_collector_backend_services)
    )
    config.agent_profile_active = settings.sw_agent_profile_active
    config.agent_cause_exception_depth = -abs(
        config.agent_cause_exception_depth
    )  # the innermost frames, not the outer
    if not agent.started():  # `sw-python run` starts it before us
        # sw_asyncpg takes by position what asyncpg 0.32 gives by keyword: every statement would
        # fail.
        config.agent_disable_plugins = [
            *config.agent_disable_plugins,
            "sw_fastapi",
            "sw_asyncpg",
            *without,
        ]
        config.agent_instance_name = _instance_name(config.agent_instance_name)
        agent.start()
    # uuid1 asks a daemon that is hardly ever there, and lets go of the interpreter's lock for it.
    sky.trace.uuid = SimpleNamespace(uuid1=new_id)
    leaving.scrub(sky)
    leaving.send_in_batches(sky)
    leaving.make_log_reporter_harmless(sky)
    # What the lifespan itself does is no request and no task: on its stack, this keeps its calls
    # from being orphans.
    sky.NoopSpan(sky.NoopContext()).start()


def _undo_sw_fastapi() -> None:
    patched = ExceptionMiddleware.__call__
    original = inspect.getclosurevars(patched).nonlocals.get("_original_fast_api")
    if original is not None:
        ExceptionMiddleware.__call__ = original  # type: ignore[method-assign]


def _check(sky: Any) -> None:
    if not hasattr(sky.agent, "started"):
        raise RuntimeError(
            "sw-python started it with SW_AGENT_ASYNCIO_ENHANCEMENT, which fails on the first spans"
        )
    if sky.agent.started_pid == os.getpid() and not sky.agent.started():
        raise RuntimeError(
            "it has been stopped in this process; a second start would patch every library twice"
        )
    level = sky.config.agent_log_reporter_level
    if not isinstance(
        logging.getLevelName(level), int
    ):  # the agent would raise at the first log line
        raise ValueError(f"SW_AGENT_LOG_REPORTER_LEVEL: {level!r} is not a level")


def _instance_name(name: str) -> str:
    """Tell apart the workers that share a SW_AGENT_INSTANCE_NAME; the agent's own default, a UUID, needs no help."""
    return name if re.fullmatch("[0-9a-f]{32}", name) else f"{name}-{os.getpid()}".lstrip("-")


class _Tracing:
    def start(self, *, has_broker: bool) -> None:
        start(in_fleet=has_broker)

    async def stop(self) -> None:
        await stop()

    def carrier(self, scope: Scope | None) -> str:
        if scope is None:
            span = _sky and _sky.SpanContext.peek()
            return guarded(_written, _sky, span) or "" if isinstance(span, RootSpan) else ""
        span = scope.get(ENTRY_SPAN)
        return (guarded(_carrier_of, _sky, span, scope) or "") if _sky and span else ""

    def attempt(
        self, attempt: Attempt, *, is_consumed: bool = False
    ) -> AbstractContextManager[None]:
        return (handed_off_attempt_span if is_consumed else attempt_span)(attempt)

    def publication(self, message: HandOff, address: str) -> AbstractContextManager[str]:
        return hand_off_span(message, address)


TRACING = _Tracing()
