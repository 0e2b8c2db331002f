"""A request's entry span, which ends with the last byte of the answer."""

from collections.abc import Callable, Iterable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from afterwards.redaction import storable
from afterwards.skywalking.agent import Agent
from afterwards.skywalking.guarded import guarded
from afterwards.skywalking.names import Span
from afterwards.skywalking.root_span import RootSpan
from afterwards.skywalking.routes import UNMATCHED, name_of
from afterwards.skywalking.sw8 import correlation_of, parent_of

ENTRY_SPAN = "skywalking.entry_span"  # where a request's scope keeps it
URL_LENGTH = 1_000  # characters of it that are sent


async def traced(
    agent: Agent,
    trusts: Callable[[str], bool],
    app: ASGIApp,
    scope: Scope,
    receive: Receive,
    send: Send,
) -> None:
    """Call the application within the request's entry span; `trusts` says whose `sw8` counts."""
    span = guarded(_start, agent, trusts, scope)
    if span is None:
        agent.set_spans([])
        await app(scope, receive, send)
        return
    status = 0

    async def watched_send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
            guarded(_name, span, scope)  # before the server logs a line of it
        await send(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            guarded(_end, span, scope, status)

    try:
        await app(scope, receive, watched_send)
    except BaseException as error:
        guarded(_end, span, scope, status or 500, error)
        raise
    finally:
        if span.depth:
            guarded(_end, span, scope, status)


def _start(agent: Agent, trusts: Callable[[str], bool], scope: Scope) -> RootSpan | Span:
    if _is_ignored(agent, scope):
        noop = scope[ENTRY_SPAN] = agent.start_noop_span("")
        return noop
    headers, client = scope["headers"], scope.get("client")
    sw8 = _only(headers, b"sw8")
    parent = parent_of(sw8) if sw8 and client and trusts(client[0]) else None
    if parent is None or not parent.address:  # without an address it is one of ours, for tasks
        sw8 = ""
    tags = {"http.method": scope["method"][:32], "http.url": _url(scope)}
    span = RootSpan(agent, UNMATCHED, agent.request, sw8, tags)
    if sw8:
        config = agent.config
        span.correlation = correlation_of(
            _only(headers, b"sw8-correlation"),
            config.correlation_element_max_number,
            config.correlation_value_max_length,
        )
    span.peer = storable(f"{client[0]}:{client[1]}") if client else "unknown"
    span.scope = scope
    scope[ENTRY_SPAN] = span
    return span


def _is_ignored(agent: Agent, scope: Scope) -> bool:
    if agent.config.ignore_http_method_check(scope["method"]):
        return True
    sampler = agent.sampling.sampling_service
    if sampler and not sampler.try_sampling():
        return True
    # The raw path, as the agent's plugin does, for SW_AGENT_TRACE_IGNORE_PATH and
    # SW_AGENT_IGNORE_SUFFIX.
    return agent.contexts.ignore_check(scope["path"]) is not None


def _name(span: RootSpan | Span, scope: Scope) -> None:
    if isinstance(span, RootSpan) and span.depth:
        span.op, span.scope = name_of(scope), None


def _end(
    span: RootSpan | Span, scope: Scope, status: int, error: BaseException | None = None
) -> None:
    if not span.depth:
        return
    if isinstance(span, RootSpan):
        if span.scope is not None:  # there was no answer
            _name(span, scope)
        if status:
            span.tags["http.status_code"] = str(status)
        span.error_occurred = status >= 500
        if error is not None:
            span.fail(error)
    span.stop()


def _url(scope: Scope) -> str:
    """Return the URL without its query and without credentials."""
    server = scope.get("server") or ("", None)
    host = _only(scope["headers"], b"host") or (
        f"{server[0]}:{server[1]}" if server[1] else server[0]
    )
    path = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
    return f"{scope['scheme']}://{host.rpartition('@')[2]}{path.decode('latin-1')}"[:URL_LENGTH]


def _only(headers: Iterable[tuple[bytes, bytes]], name: bytes) -> str:
    """Return the header's value if there is exactly one of this name, else ""."""
    only: bytes | None = None
    for key, value in headers:
        if key == name:
            if only is not None:
                return ""
            only = value
    return only.decode("latin-1") if only else ""
